"""SmolVLM and SmolVLM2: frames are images, pixel-shuffled to fewer tokens, each after its time as text; 1-D RoPE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from .base import Family
from .layout import FRAMES, Layout, Seen, frames_as_images
from .tower import Tower


def _layouts(model: PreTrainedModel, inputs: Mapping[str, Any], rows: int | None) -> list[Layout]:
    # samples are padded to the same number of images with black ones, which its encoder leaves out
    vision = model.config.vision_config
    patches = vision.image_size // vision.patch_size
    seen = Seen.of(patches * vision.patch_size, vision.image_size)
    return frames_as_images(patches // model.config.scale_factor, inputs[FRAMES], rows, seen)


SMOL_VLM = Family(
    name="SmolVLM",
    model_types=("smolvlm",),
    examples=("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "HuggingFaceTB/SmolVLM2-2.2B-Instruct"),
    layouts=_layouts,
    since="5.21",  # before, its forward does not read features in the form in which they are handed over
    modality="image",
    handed_as="image",
    encoders={"image": "get_image_features"},
    placeholder="image_token_id",
    input_names=(FRAMES,),
    frames_as="images",
    pads_samples=True,
    tower=Tower("vision_model", "encoder.layers"),
    per_picture=("pixel_attention_mask",),
)
