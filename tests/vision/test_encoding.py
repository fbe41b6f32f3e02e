"""The vision side in pieces and with stage 0: same tokens, same logits, fewer frames through the tower."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sharpv
import tiny
from sharpv.models import FAMILIES
from sharpv.vision.encoding import Encoding, repeated, split_videos
from tiny import Clip

BY_FRAME = {kind: family for family in FAMILIES if family.frames_as for kind in family.model_types}
PROMPTS: list[list[tiny.Part]] = [[10, 11, Clip(1, frames=6), 12, 13, 14, 12, 13], [10, Clip(2, frames=6), 15]]


def inputs_of(family: str, repeats: dict[int, int] | None = None) -> dict[str, Any]:
    """A batch of two clips, in which frame ``repeats[i]`` comes again as frame i."""
    inputs = tiny.FAMILIES[family].inputs(PROMPTS)
    for video in split_videos(BY_FRAME[family], inputs):  # views of the inputs
        for frame, of in (repeats or {}).items():
            video[frame] = video[of]
    return inputs


def run(model: Any, inputs: dict[str, Any], **options: Any) -> tuple[Tensor, sharpv.Report, list[list[list[int]]]]:
    with sharpv.apply(model, memory=None, **options) as handle, torch.no_grad():
        logits = model(**inputs).logits
    assert handle.report is not None
    return logits, handle.report, [video.kept for video in handle.report.videos]


class Frames:
    """Counts the frames that go through an encoder."""

    def __init__(self, model: Any, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[int] = []
        name = BY_FRAME[family].encoders["video"]
        original = getattr(model.model, name)

        @functools.wraps(original)
        def count(*args: Any, **kwargs: Any) -> Any:
            pixels = kwargs.get("pixel_values_videos", kwargs.get("pixel_values"))
            videos = split_videos(BY_FRAME[family], {**kwargs, "pixel_values_videos": pixels})
            self.seen += [len(video) for video in videos]
            return original(*args, **kwargs)

        monkeypatch.setattr(model.model, name, count)


@pytest.mark.parametrize("family", [name for name in tiny.FAMILIES if name in BY_FRAME])
class TestFamilies:
    def test_pieces_change_nothing(self, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
        model, inputs = tiny.make(family), inputs_of(family)
        whole, _, keeps = run(model, inputs)
        frames = Frames(model, family, monkeypatch)
        pieces, _, in_pieces = run(model, inputs, frames_at_once=4)
        steps = len(keeps[0])
        assert frames.seen == [n for n in (4, steps - 4) if n > 0] * 2
        assert keeps == in_pieces
        torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)

    def test_repeated_frames_are_not_encoded(self, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
        model = tiny.make(family)
        inputs = inputs_of(family, {1: 0, 2: 0, 4: 3, 5: 3})
        every, _, keeps = run(model, inputs)
        frames = Frames(model, family, monkeypatch)
        once, report, still = run(model, inputs, still=0.0)
        assert frames.seen == [2, 2]
        assert [video.encoded for video in report.videos] == [2, 2] and report.repeated == 8
        assert "encoded 4 of 12 frames" in str(report)
        assert keeps == still
        torch.testing.assert_close(once, every, atol=1e-5, rtol=0)

    def test_a_threshold_takes_what_is_near(self, family: str) -> None:
        model, inputs = tiny.make(family), inputs_of(family, {1: 0, 2: 0, 3: 0, 4: 0, 5: 0})
        same, _, _ = run(model, inputs, still=0.0)
        for video in split_videos(BY_FRAME[family], inputs):
            video[2] += 0.01
        _, report, _ = run(model, inputs, still=0.0)
        assert [video.encoded for video in report.videos] == [3, 3]  # the noisy frame, and the one after it
        near, report, _ = run(model, inputs, still=0.02, frames_at_once=1)
        assert [video.encoded for video in report.videos] == [1, 1]
        torch.testing.assert_close(near, same, atol=1e-5, rtol=0)


def test_generation_beams_and_trim() -> None:
    model, inputs = tiny.make("qwen3_vl"), inputs_of("qwen3_vl", {1: 0, 3: 2})
    options: dict[str, Any] = {"max_new_tokens": 4, "num_beams": 2, "do_sample": False}
    with sharpv.apply(model, retention=0.4):
        plain = model.generate(**inputs, **options)
    with sharpv.apply(model, retention=0.4, still=0.0, frames_at_once=2):
        assert torch.equal(model.generate(**inputs, **options), plain)
    trimmed = sharpv.trim(model, inputs, retention=0.4, still=0.0, frames_at_once=2)
    generated = model.generate(**trimmed, **options)
    new = inputs["input_ids"].shape[1]
    assert torch.equal(generated[:, trimmed["input_ids"].shape[1] :], plain[:, new:])


def test_images_beside_videos() -> None:
    family = "qwen2_5_vl"
    model = tiny.make(family)
    inputs = tiny.FAMILIES[family].inputs([[10, Clip(3, image=True), 11, Clip(1), 12, 13]])
    whole, _, _ = run(model, inputs)
    pieces, report, _ = run(model, inputs, frames_at_once=1, still=0.0)
    assert report.total == 4 * 9
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", [name for name in tiny.FAMILIES if name not in BY_FRAME])
@pytest.mark.parametrize("options", [{"still": 0.0}, {"frames_at_once": 2}])
def test_other_towers_are_refused(family: str, options: dict[str, Any]) -> None:
    model = tiny.make(family)
    sentence = "does not encode frame by frame: pass neither still nor frames_at_once"
    with pytest.raises(ValueError, match=sentence):
        sharpv.apply(model, **options)
    with pytest.raises(ValueError, match=sentence):
        sharpv.trim(model, {}, **options)
    assert sharpv.Pruning.of(model) is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"still": -1.0}, "still must be a finite number of at least 0, got -1.0"),
        ({"still": float("nan")}, "still must be a finite number of at least 0, got nan"),
        ({"frames_at_once": 0}, "frames_at_once must be a whole number of at least 1, got 0"),
        ({"frames_at_once": 2.5}, "frames_at_once must be a whole number of at least 1, got 2.5"),
    ],
)
def test_wrong_options(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Encoding(**options)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 3), st.booleans())
def test_frames_are_compared_with_the_last_encoded_one(levels: list[int], still: int, pictures: bool) -> None:
    shape = (3, 4, 6) if pictures else (5, 7)
    frames = torch.tensor(levels, dtype=torch.float32).view(-1, *[1] * len(shape)).expand(-1, *shape)
    last, expected = 0, []
    for index, level in enumerate(levels):
        last = index if abs(level - levels[last]) > still else last
        expected.append(last)
    assert repeated(frames, still).tolist() == expected


def test_one_patch_is_enough() -> None:
    frames = torch.zeros(2, 3, 16, 16)
    frames[1, :, 15, 15] = 1.0  # in the smaller patch at the edge: a pixel of four
    assert repeated(frames, 0.49).tolist() == [0, 1]
    assert repeated(frames, 0.51).tolist() == [0, 0]
