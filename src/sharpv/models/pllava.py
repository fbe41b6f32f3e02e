"""PLLaVA: LLaVA-1.5 with the features of its frames averaged down in space and time; 1-D RoPE.

Paper: Parameter-free LLaVA Extension from Images to Videos, https://arxiv.org/abs/2404.16994. transformers has no such
model, so this file has: LLaVA's own classes with one method more, and a loader for the published checkpoints
(``ermu2001/pllava-7b``), which hold LLaVA's weights of their time with LoRA deltas beside them. Written from the
published architecture and key names; the checkpoints themselves were out of reach, so the loader is tested on small
ones of the same layout.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d
from transformers import (
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaNextImageProcessor,
    LlavaNextVideoProcessor,
    LlavaNextVideoVideoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .base import Family
from .layout import Layout, Seen
from .tower import Tower

LORA = re.compile(r"(.*)\.lora_([AB])\.default\.weight")
OLD_NAMES = {
    "language_model.lm_head": "lm_head",
    "language_model.model": "model.language_model",
    "vision_tower.vision_model": "model.vision_tower",
    "multi_modal_projector": "model.multi_modal_projector",
}
"""Where LLaVA of transformers 4 kept its parts, and where transformers 5 does."""


class PllavaConfig(LlavaConfig):
    """LLaVA's, and the (frames, height, width) to which a video's features are averaged."""

    model_type = "pllava"
    pooling_shape: tuple[int, int, int] | list[int] = (16, 12, 12)


class PllavaModel(LlavaModel):
    """LLaVA that reads videos: ``pixel_values_videos`` ``(videos, frames, 3, H, W)``."""

    config_class = PllavaConfig

    def get_video_features(self, pixel_values_videos: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Each frame as an image, then the average of each box of the video."""
        (steps, height, width), frames = self.config.pooling_shape, pixel_values_videos.shape[1]
        if frames < steps:
            raise ValueError(f"PLLaVA averages over time down to {steps} frames, got {frames}: sample more")
        output = self.get_image_features(pixel_values_videos.flatten(0, 1), **{**kwargs, "return_dict": True})
        images = torch.stack(list(output.pooler_output))
        side = round(images.shape[1] ** 0.5)
        video = images.unflatten(1, (side, side)).unflatten(0, (-1, frames)).movedim(-1, 1)
        pooled = adaptive_avg_pool3d(video, (steps, height, width)).movedim(1, -1).flatten(1, 3)
        return BaseModelOutputWithPooling(output.last_hidden_state, list(pooled))

    def forward(self, *args: Any, pixel_values_videos: Tensor | None = None, **kwargs: Any) -> Any:
        if pixel_values_videos is not None:
            kwargs["mm_encoder_outputs"] = {"image": self.get_video_features(pixel_values_videos)}
        return super().forward(*args, **kwargs)


def _also_named(name: str, like: Callable[..., Any]) -> Callable[[Any], Any]:
    """``generate`` takes what the signature of ``forward`` names: that of another method, and one input more."""

    def decorate(method: Any) -> Any:
        signature = inspect.signature(like)
        *parameters, rest = signature.parameters.values()
        extra = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
        method.__signature__ = signature.replace(parameters=[*parameters, extra, rest])
        return method

    return decorate


class PllavaForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA's language model head over :class:`PllavaModel`."""

    config_class = PllavaConfig

    def __init__(self, config: PllavaConfig) -> None:
        super().__init__(config)
        self.model = PllavaModel(config)
        self.post_init()

    @_also_named("pixel_values_videos", LlavaForConditionalGeneration.forward)
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


def load_pllava(
    checkpoint: str | Path, lora_alpha: float = 4.0, dtype: torch.dtype = torch.bfloat16
) -> tuple[PllavaForConditionalGeneration, ProcessorMixin]:
    """A published PLLaVA checkpoint, its LoRA deltas merged, and a processor for videos of as many frames as it has
    steps (16).

    Args:
        checkpoint: a directory or a hub id.
        lora_alpha: strength of the deltas; they are trained with 32 and evaluated with 4.
        dtype: of the weights.

    Raises:
        ValueError: weights that the checkpoint lacks, or that PLLaVA does not know.

    >>> model, processor = load_pllava("ermu2001/pllava-7b")
    """
    folder = Path(checkpoint) if Path(checkpoint).is_dir() else Path(snapshot_download(str(checkpoint)))
    known = json.loads((folder / "config.json").read_text())
    config = PllavaConfig(**{name: value for name, value in known.items() if name not in ("model_type", "vocab_size")})
    model = PllavaForConditionalGeneration(config).to(dtype)
    found = model.load_state_dict(dict(_merged(folder, lora_alpha)), strict=False)
    if wrong := [*found.missing_keys, *found.unexpected_keys]:
        raise ValueError(
            f"{str(checkpoint)!r} is no whole PLLaVA: {len(wrong)} weights lack or are unknown: {wrong[0]}"
        )
    vision = config.vision_config
    sizes = {"size": {"shortest_edge": vision.image_size},
             "crop_size": {"height": vision.image_size, "width": vision.image_size}}  # fmt: skip
    words = AutoTokenizer.from_pretrained(folder, padding_side="left")
    processor = LlavaNextVideoProcessor(  # it counts half the side of a frame in each direction
        LlavaNextVideoVideoProcessor(**sizes), LlavaNextImageProcessor(**sizes), words,
        patch_size=vision.patch_size, vision_feature_select_strategy="default",
        video_token=words.convert_ids_to_tokens(config.image_token_index), image_token="<no image>",
    )  # fmt: skip
    return model.eval(), processor


def _merged(folder: Path, alpha: float) -> Iterator[tuple[str, Tensor]]:
    """The checkpoint's weights under today's names, W + alpha / r * B A where there are deltas."""
    weights: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            weights |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    deltas: dict[str, dict[str, Tensor]] = {}
    for name in [name for name in weights if LORA.fullmatch(name)]:
        module, side = LORA.fullmatch(name).groups()  # type: ignore[union-attr]
        deltas.setdefault(module, {})[side] = weights.pop(name)
    for name, weight in weights.items():
        module = name.removesuffix(".weight").removesuffix(".base_layer")
        if module in deltas:
            a, b = deltas[module]["A"], deltas[module]["B"]
            weight = (weight.float() + alpha / len(a) * (b.float() @ a.float())).to(weight.dtype)
        plain = name.replace(".base_model.model", "").replace(".base_layer", "")
        for old, new in OLD_NAMES.items():
            plain = new + plain.removeprefix(old) if plain.startswith(old) else plain
        if not plain.endswith(("rotary_emb.inv_freq", "position_ids")):  # buffers that are computed today
            yield plain, weight


def _layouts(model: PreTrainedModel, inputs: Mapping[str, Any], rows: int | None) -> list[Layout]:
    vision = model.config.vision_config
    read = vision.image_size // vision.patch_size * vision.patch_size
    seen = Seen.of(read, vision.image_size, cropped=True, pictures=None)
    frames, height, width = model.config.pooling_shape
    return [Layout(frames, height, width, seen=seen)] * len(inputs["pixel_values_videos"])


PLLAVA = Family(
    name="PLLaVA",
    model_types=("pllava",),
    examples=("ermu2001/pllava-7b (sharpv.models.pllava.load_pllava)",),
    layouts=_layouts,
    placeholder="image_token_id",
    # LLaVA has one placeholder, and hands what it reads over as images
    images_beside=False,
    handed_as="image",
    frames_as="pictures",
    crosses_frames=True,  # it averages over time too
    tower=Tower("vision_tower", "encoder.layers"),
)
