"""What is drawn over a pixel is the token that saw it: one patch of a clip is painted, and its token looked for."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

import checkpoints
import tiny
from sharpv.asking import encode
from sharpv.models import Layout, Seen, find_family
from sharpv.models.llava_onevision import LLAVA_ONEVISION
from sharpv.models.smol_vlm import SMOL_VLM
from sharpv.video import Clip
from sharpv.view.geometry import Window, pictures, window
from sharpv.vision.encoded import Encoded

MIXES = ("self_attn.out_proj", "attn.proj", "attention.projection_layer")
"""Where a tower's attention gives its output."""
PICTURES = 5
"""Odd, so that a processor that fuses two pictures shows the last one twice."""
EVERY = pytest.mark.parametrize("family", list(checkpoints.PROCESSORS))
SIZES = pytest.mark.parametrize("size", [(60, 96), (96, 60)], ids=["landscape", "portrait"])


@cache
def short_sighted(family: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A model whose tower does not attend: a token then tells of its own pixels only."""
    model, processor = tiny.make(family), checkpoints.PROCESSORS[family]()
    model.resize_token_embeddings(len(processor.tokenizer))
    mixing = [value for name, value in model.named_parameters() if name.rpartition(".")[0].endswith(MIXES)]
    assert mixing
    for value in mixing:
        torch.nn.init.zeros_(value)
    return model, processor


def noise(size: tuple[int, int]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(90, 160, (PICTURES, *size, 3), np.uint8)


@torch.no_grad()
def features(family: str, frames: np.ndarray[Any, Any]) -> tuple[Tensor, Layout]:
    """What the family's own processor and tower make of a clip: ``(T, N, D)``."""
    model, processor = short_sighted(family)
    own = find_family(model)
    clip = Clip(frames, np.arange(len(frames)) / 2, 2.0, len(frames) / 2, Path("clip.mp4"))
    inputs = encode(model, processor, clip, "What?")
    output = own.encode(model, own.modality, inputs)
    rows = sum(part.shape[:-1].numel() for part in output.pooler_output)
    (layout,) = own.layouts(model, inputs, rows)
    (patches,) = Encoded.of(output, [layout]).patches
    return patches, layout


def pixels(part: Window, size: tuple[int, int], share: float = 0.5) -> tuple[slice, slice]:
    """The middle of a window, in pixels: resampling blurs its border."""
    top, left = part.top + part.height * (1 - share) / 2, part.left + part.width * (1 - share) / 2
    return (
        slice(round(top * size[0]), round((top + part.height * share) * size[0])),
        slice(round(left * size[1]), round((left + part.width * share) * size[1])),
    )


@EVERY
@SIZES
def test_the_token_drawn_over_a_patch_is_the_one_that_saw_it(family, size):
    before, layout = features(family, noise(size))
    seen, frames, cells = layout.seen, layout.frames, layout.tokens_per_frame
    area = window(seen, *size)
    for place in (0, layout.width - 1, cells // 2 + 1, cells - 1):
        frame = place % frames
        shown = pictures(seen, frame, frames, PICTURES)
        painted = noise(size)
        rows, columns = pixels(area.cell(place, layout.height, layout.width), size)
        painted[shown.start : shown.stop, rows, columns] = (255, 0, 255)
        change = (features(family, painted)[0] - before).norm(dim=-1)
        assert change.argmax() == frame * cells + place
        assert change[frame, place] > 0.9 * change[frame].sum()


@EVERY
def test_a_frame_of_tokens_is_made_from_its_pictures(family):
    before, layout = features(family, noise((48, 48)))
    of = [pictures(layout.seen, frame, layout.frames, PICTURES) for frame in range(layout.frames)]
    assert sorted({picture for shown in of for picture in shown}) == list(range(PICTURES))
    for picture in range(PICTURES):
        painted = noise((48, 48))
        painted[picture] = (255, 0, 255)
        change = (features(family, painted)[0] - before).flatten(1).norm(dim=-1)
        saw = [picture in shown for shown in of]
        assert (change > 1e-3).tolist() == saw, picture


@EVERY
@SIZES
def test_what_lies_beside_the_window_is_not_seen(family, size):
    before, layout = features(family, noise(size))
    rows, columns = pixels(window(layout.seen, *size), size, share=1.0)
    outside = np.ones(size, bool)
    outside[rows, columns] = False
    assert outside.any() == layout.seen.cropped
    inner = np.zeros(size, bool)
    inner[tuple(slice(max(part.start - 8, 0), part.stop + 8) for part in (rows, columns))] = True
    painted = noise(size)
    painted[:, ~inner] = 0
    assert torch.equal(features(family, painted)[0], before)


@pytest.mark.parametrize(
    ("family", "vision"),
    [
        (LLAVA_ONEVISION, {"image_size": 384, "patch_size": 14}),
        (SMOL_VLM, {"image_size": 384, "patch_size": 14}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_margin_that_the_tower_does_not_read_is_known(family, vision):
    """27 patches of 14 pixels cover 378 of 384."""
    model = copy.deepcopy(tiny.build(family.model_types[0]))
    for name, value in vision.items():
        setattr(model.config.vision_config, name, value)
    inputs = {"pixel_values_videos": torch.zeros(1, 4, 3, 384, 384), "video_frames": [4]}
    (layout,) = family.layouts(model, inputs, None)
    assert layout.seen == Seen.of(378, 384)
    area = window(layout.seen, 768, 384)
    assert (area.height * 768, area.width * 384) == (756, 378)


def test_windows():
    assert window(Seen(cropped=True), 100, 200) == Window(0, 0.25, 1, 0.5)
    assert window(Seen(cropped=True), 200, 100) == Window(0.25, 0, 0.5, 1)
    assert window(Seen(0.5, 0.75), 100, 200) == Window(0, 0, 0.5, 0.75)
    assert [list(pictures(Seen(pictures=2), frame, 3, 5)) for frame in range(3)] == [[0, 1], [2, 3], [4]]
    assert list(pictures(Seen(pictures=2), 0, 1, 1)) == [0]
    assert [list(pictures(Seen(pictures=None), frame, 4, 5)) for frame in range(4)] == [[0, 1], [1, 2], [2, 3], [3, 4]]
