"""The older video LLaVAs: CLIP-like towers of a fixed input size, a Llama language model with 1-D RoPE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from .base import Family
from .layout import Layout, Seen, square_frames
from .tower import Tower


def _frames(model: PreTrainedModel, inputs: Mapping[str, Any], pool: int, leading: int) -> list[Layout]:
    vision = model.config.vision_config
    side = vision.image_size // vision.patch_size // pool
    # their processors cut the middle out
    seen = Seen.of(side * pool * vision.patch_size, vision.image_size, cropped=True)
    videos, frames = inputs["pixel_values_videos"].shape[:2]
    return square_frames(side, frames, videos, seen, leading=leading)


def _next_video(model: PreTrainedModel, inputs: Mapping[str, Any], rows: int | None) -> list[Layout]:
    # a pooling of kernel and stride spatial_pool_stride: 24 x 24 patches become 12 x 12 tokens
    return _frames(model, inputs, pool=model.config.spatial_pool_stride, leading=0)


def _video_llava(model: PreTrainedModel, inputs: Mapping[str, Any], rows: int | None) -> list[Layout]:
    # the language model reads the class token of each frame: it has no place on the grid, so it stays
    return _frames(model, inputs, pool=1, leading=1)


LLAVA_NEXT_VIDEO = Family(
    name="LLaVA-NeXT-Video",
    model_types=("llava_next_video",),
    examples=("llava-hf/LLaVA-NeXT-Video-7B-hf",),
    layouts=_next_video,
    frames_as="pictures",
    tower=Tower("vision_tower", "encoder.layers"),
)

VIDEO_LLAVA = Family(
    name="Video-LLaVA",
    model_types=("video_llava",),
    examples=("LanguageBind/Video-LLaVA-7B-hf",),
    layouts=_video_llava,
    frames_as="pictures",
    tower=Tower("video_tower", "encoder.layers"),
    # its forward moves the features as one tensor
    batched_features=True,
    # its processor's name for stills is older than its model's
    also_called={"pixel_values_images": "pixel_values"},
)
