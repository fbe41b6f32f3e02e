"""The Qwen-VL line and GLM-V: a patch-merging tower of native resolution, multimodal RoPE with (t, h, w) positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from .base import Family
from .layout import Layout, Seen
from .tower import Tower


def _layouts(model: PreTrainedModel, inputs: Mapping[str, Any], rows: int | None) -> list[Layout]:
    # the grid counts patches before the merger; a frame is one temporal step (two fused pictures)
    vision = model.config.vision_config
    merge, seen = vision.spatial_merge_size, Seen(pictures=vision.temporal_patch_size)
    return [Layout(t, h // merge, w // merge, seen=seen) for t, h, w in inputs["video_grid_thw"].tolist()]


QWEN2_VL = Family(
    name="Qwen2-VL",
    model_types=("qwen2_vl",),
    examples=("Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2-VL-7B-Instruct"),
    layouts=_layouts,
    frames_as="patches",
    tower=Tower("visual", "blocks"),
    positions="mrope",
)

QWEN2_5_VL = Family(
    name="Qwen2.5-VL",
    model_types=("qwen2_5_vl",),
    examples=("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
    layouts=_layouts,
    frames_as="patches",
    tower=Tower("visual", "blocks", windows=True),
    positions="mrope",
    # seconds per temporal step: scales the time row of the positions
    input_names=("second_per_grid_ts",),
)

QWEN3_VL = Family(
    name="Qwen3-VL",
    model_types=("qwen3_vl", "qwen3_vl_moe"),
    examples=("Qwen/Qwen3-VL-4B-Instruct", "Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-30B-A3B-Instruct"),
    # timestamps stand as text between the frames and stay; the deepstack rows are pruned with the features
    layouts=_layouts,
    frames_as="patches",
    tower=Tower("visual", "blocks", taps="deepstack_merger_list"),
    positions="mrope",
)

QWEN3_5 = Family(
    name="Qwen3.5",
    model_types=("qwen3_5", "qwen3_5_moe"),
    variants=("qwen3_5_moe",),
    examples=("Qwen/Qwen3.5-27B", "Qwen/Qwen3.5-35B-A3B"),
    # three of four layers are linear attention; the vision side is Qwen3-VL's without deepstack
    hybrid=True,
    layouts=_layouts,
    frames_as="patches",
    tower=Tower("visual", "blocks"),
    positions="mrope",
)

GLM_V = Family(
    name="GLM-4.1V to 4.6V",
    model_types=("glm4v", "glm4v_moe", "glm46v"),
    variants=("glm4v_moe", "glm46v"),
    examples=("zai-org/GLM-4.1V-9B-Thinking", "zai-org/GLM-4.5V", "zai-org/GLM-4.6V"),
    layouts=_layouts,
    frames_as="patches",
    tower=Tower("visual", "blocks"),
    positions="mrope",
    # images and videos share one placeholder, so the model itself cannot read both in one batch
    placeholder="image_token_id",
    images_beside=False,
    # its forward treats both alike, but generate looks for video_token_id when it repeats or cuts video features
    handed_as="image",
    # its vision tower reads the weights of its position table past the table's forward
    offload=False,
)
