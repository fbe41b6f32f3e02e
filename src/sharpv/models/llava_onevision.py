"""LLaVA-OneVision: SigLIP, an MLP projector, bilinear 2x2 pooling for video, a Qwen2 language model with 1-D RoPE."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from .base import Family
from .layout import Layout, Seen, square_frames
from .tower import Tower


def _layouts(model: PreTrainedModel, inputs: Mapping[str, Any], rows: int | None) -> list[Layout]:
    # pooled by ceil(side / 2), so 27 x 27 patches become 14 x 14 tokens
    vision = model.config.vision_config
    patches = vision.image_size // vision.patch_size
    seen = Seen.of(patches * vision.patch_size, vision.image_size)
    videos, frames = inputs["pixel_values_videos"].shape[:2]
    # one image_newline closes each video; it is a separator, not a patch
    return square_frames(math.ceil(patches / 2), frames, videos, seen, trailing=1)


LLAVA_ONEVISION = Family(
    name="LLaVA-OneVision",
    model_types=("llava_onevision",),
    examples=("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
    layouts=_layouts,
    frames_as="pictures",
    tower=Tower("vision_tower", "encoder.layers", pooling="bilinear"),
    # its forward calls .flatten(0, 1) on the video features
    batched_features=True,
    input_names=("image_sizes_videos",),
)
