"""Every family's own processor, built locally: all that it returns is read, of stills and several videos too."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

import checkpoints
import sharpv
import tiny
from sharpv.asking import encode_turns
from sharpv.models import find_family
from sharpv.models.base import RAW_PIXELS
from sharpv.video import Clip

NO_STILLS = {
    "glm4v": "one placeholder for both",
    "pllava": "number of images passed",
    "smolvlm": "number of images passed",
}
"""Families that refuse stills beside videos: the library, or here the processor, since SmolVLM's own template for
videos writes another image token than this one has; see test_frames_that_are_images_must_be_named for its stills."""
VIDEO, STILL = {"type": "video"}, {"type": "image"}


@cache
def loaded(family: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    model, processor = tiny.make(family), checkpoints.PROCESSORS[family]()
    torch.manual_seed(0)
    model.resize_token_embeddings(len(processor.tokenizer))
    return model, processor


def clip(seed: int, frames: int = 4) -> Clip:
    pictures = np.random.default_rng(seed).integers(0, 255, (frames, 48, 48, 3), np.uint8)
    return Clip(pictures, np.arange(frames) / 2, 2.0, frames / 2, Path(f"{seed}.mp4"))


def inputs_of(family: str, parts: list[dict[str, str]], still: int = 255) -> Any:
    model, processor = loaded(family)
    content = [*parts, {"type": "text", "text": "What moves?"}]
    videos = [clip(seed) for seed, part in enumerate(parts) if part is VIDEO]
    image = np.full((48, 48, 3), still, np.uint8)
    image[::3] = still // 2
    images = [image for part in parts if part is STILL]
    return encode_turns(model, processor, [{"role": "user", "content": content}], videos, images)


@torch.no_grad()
def logits(family: str, inputs: Any, **options: Any) -> Tensor:
    model, _ = loaded(family)
    if not options:
        return model(**find_family(model).stock_inputs(inputs)).logits
    with sharpv.apply(model, **options):
        return model(**inputs).logits


EVERY = pytest.mark.parametrize("family", list(checkpoints.PROCESSORS))


@EVERY
@pytest.mark.parametrize("parts", [[VIDEO], [VIDEO, VIDEO], [STILL, VIDEO]], ids=["one", "two", "still beside"])
def test_all_kept_is_the_model_s_own_answer(family, parts):
    if STILL in parts and family in NO_STILLS:
        with pytest.raises(ValueError, match=NO_STILLS[family]):
            logits(family, inputs_of(family, parts), retention=1.0)
        return
    inputs = inputs_of(family, parts)
    torch.testing.assert_close(logits(family, inputs, retention=1.0), logits(family, inputs), atol=1e-5, rtol=0)
    assert logits(family, inputs, retention=0.3).shape[1] < inputs["input_ids"].shape[1]


@EVERY
def test_a_still_beside_a_video_is_seen(family):
    if family in NO_STILLS:
        return
    white, black = (inputs_of(family, [STILL, VIDEO], still) for still in (255, 0))
    for options in ({}, {"retention": 1.0}, {"retention": 0.3}):
        assert (logits(family, white, **options)[:, -1] - logits(family, black, **options)[:, -1]).abs().max() > 1e-4


@EVERY
def test_a_still_alone_is_the_model_s_own_business(family):
    if family in NO_STILLS:
        return
    inputs = inputs_of(family, [STILL])
    assert inputs.get("video_frames", []) == []
    assert torch.equal(logits(family, inputs, retention=0.3), logits(family, inputs))


def test_a_still_of_several_tiles_moves_the_frames_behind_it():
    """InternVL's processor cuts a still into tiles, each a picture to the model."""
    model, processor = loaded("internvl")[0], checkpoints.PROCESSORS["internvl"]()
    processor.image_processor.crop_to_patches = True
    content = [STILL, VIDEO, STILL, {"type": "text", "text": "What moves?"}]
    stills = [np.zeros((24, 72, 3), np.uint8), np.zeros((24, 24, 3), np.uint8)]
    inputs = encode_turns(model, processor, [{"role": "user", "content": content}], [clip(0)], stills)
    ((start, end),) = inputs["video_frames"]
    assert start > 1
    assert torch.equal(inputs["pixel_values"][start:end], inputs_of("internvl", [VIDEO])["pixel_values"])


@EVERY
def test_what_nobody_reads_is_refused(family):
    model, _ = loaded(family)
    own = find_family(model)
    inputs = inputs_of(family, [VIDEO])
    unread = {**inputs, "pixel_values_thumbnails": torch.zeros(1, 3, 8, 8)}
    with sharpv.apply(model, retention=0.5):
        for call in (model, lambda **given: model.generate(**given, max_new_tokens=2)):
            with pytest.raises(ValueError, match="reads no input 'pixel_values_thumbnails'; it reads pixel_"):
                call(**unread)
    if family in NO_STILLS or own.modality == "image":
        return
    lost = dict(inputs_of(family, [STILL, VIDEO]))
    for name in ("pixel_values", "pixel_values_images"):
        lost.pop(name, None)
    with (
        sharpv.apply(model, retention=0.5),
        pytest.raises(ValueError, match="image placeholder tokens, but no pictures"),
    ):
        model(**lost)
    assert RAW_PIXELS["video"] in lost
