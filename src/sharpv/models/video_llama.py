"""VideoLLaMA 3: native resolution, pooled per video, and tokens that its own processor leaves out; 1-D RoPE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from ..methods.budget import Present
from .base import Family
from .layout import Layout
from .tower import Tower


def _layouts(model: PreTrainedModel, inputs: Mapping[str, Any], rows: int | None) -> list[Layout]:
    # the factor by which height and width are pooled differs between images and videos, so the processor tells it
    grids, merges = inputs["video_grid_thw"].tolist(), inputs["video_merge_sizes"].tolist()
    layouts = [Layout(t, h // merge, w // merge) for (t, h, w), merge in zip(grids, merges, strict=True)]
    mask = inputs.get("video_compression_mask")
    if mask is None:
        return layouts
    # its processor leaves out tokens whose pixels hardly change: they have features, but no placeholder
    parts = mask.split([layout.rows for layout in layouts])
    counts = [int(part.sum()) for part in mask.cpu().split([layout.rows for layout in layouts])]
    return [
        Layout(layout.frames, layout.height, layout.width, present=Present(part.view(layout.frames, -1), count))
        for layout, part, count in zip(layouts, parts, counts, strict=True)
    ]


VIDEO_LLAMA_3 = Family(
    name="VideoLLaMA 3",
    model_types=("video_llama_3",),
    examples=("lkhl/VideoLLaMA3-2B-Image-HF",),
    layouts=_layouts,
    frames_as="patches",
    tower=Tower("vision_model", "encoder.layers"),
    per_video=("video_merge_sizes",),
    input_names=("video_compression_mask",),
)
