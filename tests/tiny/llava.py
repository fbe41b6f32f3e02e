"""The LLaVA line: frames of one fixed size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    Qwen2Config,
    SiglipVisionConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

from sharpv.models.pllava import PllavaConfig, PllavaForConditionalGeneration

from .parts import IMAGE, TEXT, VIDEO, Clip, Part, draw, pad


class Llava:
    """Frames of one fixed size, stacked to ``(videos, frames, 3, size, size)``."""

    size, patch = 24, 4
    image_tokens = 0
    placeholder = VIDEO
    hybrid = False
    images_beside = True

    def patch_columns(self, inputs: dict[str, Any]) -> Tensor:
        """(B, L) bool: placeholders of video patches."""
        return inputs["input_ids"] == self.placeholder

    def tokens_of_frames(self, part: Clip) -> int:
        """Placeholders of a video's patches."""
        return part.frames * part.height * part.width

    def video_tokens(self, part: Clip) -> int:
        raise NotImplementedError

    def image_inputs(self, images: list[Tensor]) -> dict[str, Any]:
        return {"pixel_values": torch.stack(images)}

    def inputs(self, prompts: list[list[Part]], side: str = "left") -> dict[str, Any]:
        rows, videos, images = [], [], []
        for prompt in prompts:
            row = []
            for part in prompt:
                if isinstance(part, int):
                    row.append(part)
                elif part.image:
                    row += [IMAGE] * self.image_tokens
                    images.append(draw(part, 3, self.size, self.size, 1)[0])
                else:
                    row += [self.placeholder] * self.video_tokens(part)
                    videos.append(draw(part, 3, self.size, self.size, part.frames))
            rows.append(row)
        ids, mask = pad(rows, side)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if videos:
            inputs["pixel_values_videos"] = torch.stack(videos)
        return {**inputs, **(self.image_inputs(images) if images else {})}


class LlavaOneVision(Llava):
    """Frames of 6 x 6 patches pooled to 3 x 3 tokens, one newline after each video."""

    model_type = "llava_onevision"
    image_tokens = 36 + 6 * 7  # base view, and one crop of 6 x 6 patches, each row closed by a newline

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        vision = SiglipVisionConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=self.size,
            patch_size=self.patch, vision_use_head=False,
        )  # fmt: skip
        config = LlavaOnevisionConfig(
            vision_config=vision, text_config=Qwen2Config(**TEXT), image_token_index=IMAGE, video_token_index=VIDEO,
            vision_feature_layer=-1, vision_feature_select_strategy="full", image_grid_pinpoints=[[24, 24]],
            tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        model = LlavaOnevisionForConditionalGeneration(config)
        torch.nn.init.normal_(model.model.image_newline)
        return model

    def video_tokens(self, part: Clip) -> int:
        return part.frames * 9 + 1

    def patch_columns(self, inputs: dict[str, Any]) -> Tensor:
        columns = super().patch_columns(inputs)
        newline = columns & ~torch.nn.functional.pad(columns, (0, 1))[:, 1:]
        return columns & ~newline

    def image_inputs(self, images: list[Tensor]) -> dict[str, Any]:
        crops = torch.stack([image.expand(2, -1, -1, -1) for image in images])
        return {"pixel_values": crops, "image_sizes": torch.tensor([[self.size, self.size]] * len(images))}


class LlavaNextVideo(Llava):
    """CLIP without its class token, 6 x 6 patches pooled to 3 x 3 tokens."""

    model_type = "llava_next_video"
    image_tokens = 36 + 6 * 7

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = LlavaNextVideoConfig(
            vision_config=_clip(self.size, self.patch), text_config=LlamaConfig(**TEXT), image_token_index=IMAGE,
            video_token_index=VIDEO, vision_feature_layer=-2, vision_feature_select_strategy="default",
            image_grid_pinpoints=[[24, 24]], spatial_pool_stride=2, spatial_pool_mode="average",
            tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        model = LlavaNextVideoForConditionalGeneration(config)
        torch.nn.init.normal_(model.model.image_newline)
        return model

    def video_tokens(self, part: Clip) -> int:
        return part.frames * 9

    image_inputs = LlavaOneVision.image_inputs


class VideoLlava(Llava):
    """The class token of each frame is read too: 1 + 3 x 3 tokens."""

    model_type = "video_llava"
    patch = 8
    image_tokens = 9  # of an image the class token is not read

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = VideoLlavaConfig(
            vision_config=_clip(self.size, self.patch), text_config=LlamaConfig(**TEXT), image_token_index=IMAGE,
            video_token_index=VIDEO, vision_feature_layer=-2, vision_feature_select_strategy="default",
            tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        return VideoLlavaForConditionalGeneration(config)

    def video_tokens(self, part: Clip) -> int:
        return part.frames * 10

    def patch_columns(self, inputs: dict[str, Any]) -> Tensor:
        columns = super().patch_columns(inputs)
        return columns & ((columns.cumsum(1) - 1) % 10 != 0)


def _clip(size: int, patch: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, image_size=size,
        patch_size=patch, projection_dim=32,
    )  # fmt: skip


class Pllava(Llava):
    """Frames of 6 x 6 patches, averaged to 3 x 3 tokens; images and videos share a placeholder."""

    model_type = "pllava"
    placeholder = IMAGE
    images_beside = False

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = PllavaConfig(
            vision_config=_clip(self.size, self.patch), text_config=LlamaConfig(**TEXT), image_token_index=IMAGE,
            pooling_shape=(4, 3, 3), tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        return PllavaForConditionalGeneration(config)

    def video_tokens(self, part: Clip) -> int:
        return 4 * 9

    def tokens_of_frames(self, part: Clip) -> int:
        return 4 * 9
