"""Numbers at every door: all kinds that people hold are taken and become plain, what is none is refused by name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import sharpv
import tiny
from sharpv import Budget, Config, Contribution, CosineThreshold, KeepLayers, video
from sharpv.calibration import require
from sharpv.checks import number, whole
from sharpv.integrations.vllm.options import Options
from sharpv.methods import METHODS
from sharpv.models.layout import Layout, frames_as_images
from sharpv.vision.asked import Encoding
from sharpv.vision.rules import Changed, Kept

Door = tuple[str, Callable[..., Any]]
DEFAULTS = [
    (field.name, method, field.type)
    for method in METHODS.values()
    for field in fields(method)
    if field.type in ("int", "float")
]
"""Each parameter of each method that is a number."""


def read(**options: Any) -> None:
    """Numbers are looked at before the file is."""
    video.read_video("no such file.mp4", **options)


WHOLE: list[Door] = [
    *((name, method) for name, method, kind in DEFAULTS if kind == "int"),
    ("max_tokens", Budget),
    ("min_tokens_per_frame", Budget),
    ("frames_at_once", Encoding),
    ("rows", lambda rows: Contribution(threshold=0.1, rows=rows)),
    ("keep", lambda keep: KeepLayers(keep=[keep])),
    ("frames", read),
    ("max_pixels", read),
    ("max_frames", read),
    ("video_frames", lambda video_frames: frames_as_images(2, [video_frames], None)),
    ("max_new_tokens", lambda **given: sharpv.calibrate(tiny.make("llava_onevision"), [], **given)),
]
REAL: list[Door] = [
    *((name, method) for name, method, kind in DEFAULTS if kind == "float"),
    ("retention", Budget),
    ("threshold", Changed),
    ("limit", Changed),
    ("share", Kept),
    ("threshold", CosineThreshold),
    ("threshold", Contribution),
    ("relative", Contribution),
    ("kv_budget", Contribution),
    ("gain", lambda gain: Options(Config(retention=0.5), "pixels", gain)),
    ("fps", read),
    ("tolerance", lambda tolerance: require(Config(), tolerance)),
    ("threshold", lambda threshold: Config(memory=CosineThreshold(threshold))),
]


def names(doors: list[Door]) -> list[str]:
    return [f"{getattr(door, '__name__', '')}-{name}" for name, door in doors]


@pytest.mark.parametrize(("name", "door"), WHOLE, ids=names(WHOLE))
@pytest.mark.parametrize(
    "wrong", [True, np.True_, 2.5, "2", [2, 3, 4], torch.tensor(2.5), torch.tensor(True)], ids=repr
)
def test_what_is_no_whole_number_is_refused_by_name(name, door, wrong):
    with pytest.raises((TypeError, ValueError)) as refused:
        door(**{name: wrong})
    assert re.search(rf"{name} must (be|hold) .*, got ", str(refused.value)), refused.value


@pytest.mark.parametrize(("name", "door"), REAL, ids=names(REAL))
@pytest.mark.parametrize("wrong", [True, np.True_, "0.5", math.nan, [0.5], torch.tensor(0.5), 1j], ids=repr)
def test_what_is_no_number_is_refused_by_name(name, door, wrong):
    with pytest.raises((TypeError, ValueError)) as refused:
        door(**{name: wrong})
    assert re.search(rf"({name}|memory) (is .*)?must (be|lie) .*, got ", str(refused.value)), refused.value


@pytest.mark.parametrize(("name", "method", "kind"), DEFAULTS)
def test_a_method_s_numbers_of_other_kinds_become_plain(name, method, kind):
    default = getattr(method(), name)
    for other in (np.int32(default),) if kind == "int" else (np.float64(default), np.float32(default)):
        held = getattr(method(**{name: other}), name)
        assert type(held) is type(default) and held == pytest.approx(default)
    assert type(getattr(method(**{name: np.int64(1)}), name)) is type(default)


def test_numbers_of_every_kind_become_plain():
    kinds = (2, np.int64(2), np.uint8(2), np.array(2), torch.tensor(2))
    assert [whole("n", each, least=2) for each in kinds] == [2] * 5
    assert {type(whole("n", each)) for each in kinds} == {int}
    kinds = (0.25, np.float32(0.25), np.float16(0.25), Fraction(1, 4), Decimal("0.25"))
    assert [number("x", each, above=0, most=1) for each in kinds] == [0.25] * 5
    assert {type(number("x", each)) for each in (*kinds, 1, np.int8(1))} == {float}
    budget = Budget(np.float32(0.25), np.int64(12), np.int32(1))
    assert repr(budget) == "Budget(retention=0.25, max_tokens=12, min_tokens_per_frame=1)"
    assert json.dumps(vars(budget)) and json.dumps(Encoding(frames_at_once=np.int64(2)).frames_at_once)


@pytest.mark.parametrize(
    ("options", "value", "accepted"),
    [
        ({}, math.inf, "be a finite number"),
        ({"least": 0}, -1, "be a finite number of at least 0"),
        ({"least": 0}, math.inf, "be a finite number of at least 0"),
        ({"above": 0}, 0.0, "be a finite number above 0"),
        ({"above": 0, "most": math.inf}, 0, "be above 0"),
        ({"least": -1, "most": 1}, 1.5, "lie in [-1, 1]"),
        ({"above": 0, "most": 1}, 0, "lie in (0, 1]"),
        ({"above": 0, "most": 1}, math.nan, "lie in (0, 1]"),
    ],
)
def test_ranges_and_their_sentences(options, value, accepted):
    with pytest.raises(ValueError, match=re.escape(f"x must {accepted}, got {value!r}")):
        number("x", value, **options)
    with pytest.raises(TypeError, match=re.escape(f"x must {accepted}, as a plain number, got 'a'")):
        number("x", "a", **options)
    assert number("x", math.inf, above=0, most=math.inf) == math.inf and number("x", 1, above=0, most=1) == 1.0


@pytest.mark.parametrize("keep", [(1, 0), [0, 1], range(2), {1, 0}, np.array([1, 0]), torch.tensor([0, 1])], ids=repr)
def test_layers_in_any_collection(keep):
    assert KeepLayers(keep) == KeepLayers((0, 1)) and repr(KeepLayers(keep)) == "KeepLayers(keep=(0, 1))"


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ((0, 1.5), "a layer of keep must be a whole number, got 1.5"),
        ((0.0, 1.0), "got 0.0"),
        ("0+1", "keep must hold layers, such as keep=(0, 23), got '0+1'"),
        (1j, "keep must hold layers, such as keep=(0, 23), got 1j"),
        ((0, -1), "keep must hold different layers, counted from 0, got (-1, 0)"),
        (np.array([2, 2]), "keep must hold different layers, counted from 0, got (2, 2)"),
    ],
)
def test_layers_that_are_none(keep, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        KeepLayers(keep)


def test_a_share_of_zero_counts_as_not_given():
    assert Contribution(threshold=0, relative=np.float32(0.5)) == Contribution(relative=0.5)
    assert Contribution(threshold=math.inf).threshold == math.inf


@pytest.mark.parametrize(
    "frames",
    [[4], (4,), 4, np.int64(4), np.array([4]), torch.tensor([4]), torch.tensor(4), [np.int64(4)], [torch.tensor(4)],
     [(0, 4)], [[0, 4]], [np.array([0, 4])], np.array([[0, 4]]), torch.tensor([[0, 4]]),
     [(np.int64(0), torch.tensor(4))]],
    ids=repr,
)  # fmt: skip
def test_frames_of_videos_in_any_collection(frames):
    assert frames_as_images(3, frames, 36) == [Layout(4, 3, 3)]
    family = sharpv.models.find_family(tiny.make("internvl"))
    assert family.has_video({"pixel_values": torch.zeros(4), "video_frames": frames})


def test_no_frames_of_videos():
    assert frames_as_images(3, [], None) == frames_as_images(3, torch.tensor([]), None) == []


@pytest.mark.parametrize(
    "frames", [[4.0], "4", ["4"], [True], [(4,)], [(0, 4, 8)], [slice(0, 4)], [(0, 1.5)]], ids=repr
)
def test_frames_of_videos_that_are_none(frames):
    message = f"video_frames must hold numbers of frames or rising (start, stop) pairs, got {frames!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        frames_as_images(3, frames, None)


@pytest.mark.parametrize("inputs", [None, [1, 2], "clip.mp4"])
def test_inputs_that_are_no_mapping_are_refused(inputs):
    with pytest.raises(TypeError, match=f"a mapping, got {type(inputs).__name__}"):
        sharpv.trim(tiny.make("llava_onevision"), inputs)
