"""PerceptionLM: a Perception Encoder from timm, adaptive pooling, a Llama language model with 1-D RoPE."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from .base import Family
from .layout import Layout, Seen, square_frames


def _layouts(model: PreTrainedModel, inputs: Mapping[str, Any], rows: int | None) -> list[Layout]:
    # the tower is timm's and its configuration says little: what it made tells the size of a frame
    videos, frames = inputs["pixel_values_videos"].shape[:2]
    return square_frames(math.isqrt((rows or 0) // (videos * frames)), frames, videos, Seen())


PERCEPTION_LM = Family(
    name="PerceptionLM",
    model_types=("perception_lm",),
    examples=("facebook/Perception-LM-1B", "facebook/Perception-LM-8B"),
    layouts=_layouts,
    frames_as="pictures",
    # one encoder for both, and a forward that moves the features as one tensor
    encoders={"image": "get_image_features", "video": "get_image_features"},
    batched_features=True,
    # timm's tower reads weights past their modules' forward
    offload=False,
)
