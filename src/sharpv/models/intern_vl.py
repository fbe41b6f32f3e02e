"""InternVL 2.5 and 3, in the ports for transformers: frames are images, pixel-shuffled to fewer tokens; 1-D RoPE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from .base import Family
from .layout import FRAMES, Layout, Seen, frames_as_images
from .tower import Tower


def _layouts(model: PreTrainedModel, inputs: Mapping[str, Any], rows: int | None) -> list[Layout]:
    # frames are never tiled; an image is, and each tile counts as an image here
    vision = model.config.vision_config
    (size, _), (patch, _) = vision.image_size, vision.patch_size
    side = round(size // patch * model.config.downsample_ratio)
    return frames_as_images(side, inputs[FRAMES], rows, Seen.of(size // patch * patch, size))


INTERN_VL = Family(
    name="InternVL",
    model_types=("internvl",),
    examples=("OpenGVLab/InternVL3-1B-hf", "OpenGVLab/InternVL3_5-8B-HF"),
    layouts=_layouts,
    modality="image",
    handed_as="image",
    encoders={"image": "get_image_features"},
    placeholder="image_token_id",
    # its forward moves the features as one tensor
    batched_features=True,
    input_names=(FRAMES,),
    frames_as="images",
    tower=Tower("vision_tower", "encoder.layer"),
)
