"""LLaVA-OneVision in vLLM with its videos pruned.

vLLM gives the tokens of this model's prompt consecutive positions. To keep the gaps that pruning leaves, as the
library does with transformers, the language model's rotary embedding is told to be a multimodal one with three equal
channels, which is the plain one with positions of our own: see :func:`positions_of_our_own`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.model_executor.models.llava_onevision import (
    LlavaOnevisionDummyInputsBuilder,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionMultiModalProcessor,
    LlavaOnevisionProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from .encoding import encoding_pictures
from .model import PrunedModel, groups
from .positions import Medium, with_positions
from .processor import COUNT, PrunedVideos
from .selection import Shown, pool_stride, shown_pictures


class ProcessingInfo(LlavaOnevisionProcessingInfo):
    """Sizes vLLM's budget by what is encoded, where it would take what is left of a dummy video."""

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """The most tokens of an image and of a video before pruning."""
        return {"image": self.get_max_image_tokens(), "video": self.get_max_video_tokens(seq_len, mm_counts)}


class Processor(PrunedVideos, LlavaOnevisionMultiModalProcessor):
    """vLLM's processor, with shorter videos."""

    beside = 1  # the newline that ends a video

    def videos(self, inputs: Mapping[str, Any]) -> list[Shown]:
        config = self.info.get_hf_config()
        patch, stride = config.vision_config.patch_size, pool_stride(config)
        return [shown_pictures(pixels, patch, stride) for pixels in inputs["pixel_values_videos"]]

    def video_token(self) -> int:
        token: int = self.info.get_hf_config().video_token_index
        return token


@MULTIMODAL_REGISTRY.register_processor(Processor, info=ProcessingInfo, dummy_inputs=LlavaOnevisionDummyInputsBuilder)
class PrunedLlavaOnevision(PrunedModel, LlavaOnevisionForConditionalGeneration, SupportsMRoPE):
    """vLLM's model; a video's rows are what is kept and a newline."""

    positions = "1d"
    tower = "vision_tower"
    supports_multimodal_pruning = True

    def video_rows(self, inputs: dict[str, Any], counts: list[int], encoded: Sequence[Tensor] | None) -> list[Tensor]:
        pixels = list(inputs["pixel_values_videos"])
        vision = self.config.vision_config
        per_frame = math.ceil(vision.image_size // vision.patch_size / pool_stride(self.config)) ** 2
        rows: list[Tensor] = []
        for part in groups([len(each) * per_frame for each in pixels], self.encoder_budget):
            with encoding_pictures(self.vision_tower, None if encoded is None else encoded[part]):
                frames = self._video_pixels_to_features(self.vision_tower, torch.cat(pixels[part]))
            for features in frames.split([len(each) for each in pixels[part]]):
                kept, survivors = self.choose(features, counts[len(rows)])
                places = torch.cat([kept, kept.new_tensor([features.shape[:2].numel()])])
                kept_rows = torch.cat([survivors, self.image_newline[None].to(survivors)])
                rows.append(with_positions(kept_rows, places.expand(3, -1)))
        return rows

    def apply_pooling(self, image_features: Tensor, stride: int | None = None) -> Any:
        """As the configuration says: vLLM counts the tokens of a prompt by it, and pools by two whatever it says."""
        return super().apply_pooling(image_features, stride or pool_stride(self.config))

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Takes checkpoints of transformers 5 too, which names the tower's parts without ``vision_model``
        (docs/upstream/siglip-names.md)."""
        tower = re.compile(r"^((?:model\.)?vision_tower\.)(?!vision_model\.)")
        loaded: set[str] = super().load_weights((tower.sub(r"\1vision_model.", name), w) for name, w in weights)
        return loaded

    def media(self, ids: list[int], features: Any) -> Iterator[Medium]:
        for feature in features:
            place = feature.mm_position
            length = place.length
            if feature.modality == "video":
                length = int(feature.data[COUNT].data[1]) + 1
            yield Medium(place.offset, place.length, torch.arange(length).expand(3, -1))

    def video_token(self) -> int:
        token: int = self.config.video_token_index
        return token
