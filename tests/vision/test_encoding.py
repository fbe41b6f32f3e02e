"""The vision side in pieces, and what the report says of what was encoded."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import torch
from torch import Tensor

import sharpv
import tiny
from sharpv.models import find_family
from sharpv.vision.encoding import Encoding, split_videos
from tiny import Clip

IN_PIECES = [
    name for name in tiny.FAMILIES if (family := find_family(tiny.build(name))).frames_as and not family.crosses_frames
]
PROMPTS: list[list[tiny.Part]] = [[10, 11, Clip(1, frames=6), 12, 13, 14, 12, 13], [10, Clip(2, frames=6), 15]]


def run(model: Any, inputs: dict[str, Any], **options: Any) -> tuple[Tensor, sharpv.Report, list[list[list[int]]]]:
    with sharpv.apply(model, memory=None, **options) as handle, torch.no_grad():
        logits = model(**inputs).logits
    assert handle.report is not None
    return logits, handle.report, [video.kept for video in handle.report.videos]


class Frames:
    """Counts the frames that go through an encoder."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[int] = []
        family = find_family(model)
        name = family.encoders[family.modality]
        original = getattr(model.model, name)

        @functools.wraps(original)
        def count(*args: Any, **kwargs: Any) -> Any:
            pixels = kwargs.get("pixel_values_videos", kwargs.get("pixel_values"))
            known = {**kwargs, "pixel_values_videos": pixels, "pixel_values": pixels}
            known.setdefault("video_frames", [pixels.shape[:-3].numel()])
            self.seen += [len(part.frames) for part in split_videos(model, family, known)]
            return original(*args, **kwargs)

        monkeypatch.setattr(model.model, name, count)


@pytest.mark.parametrize("family", IN_PIECES)
def test_pieces_change_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = tiny.make(family), tiny.FAMILIES[family].inputs(PROMPTS)
    whole, _, keeps = run(model, inputs)
    frames = Frames(model, monkeypatch)
    pieces, _, in_pieces = run(model, inputs, frames_at_once=4)
    assert frames.seen == [4, 2] * 2
    assert keeps == in_pieces
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", [name for name in IN_PIECES if name != "perception_lm"])
def test_a_piece_begins_with_a_whole_frame(family: str) -> None:
    model, inputs = tiny.build(family), tiny.FAMILIES[family].inputs(PROMPTS)
    _, report, _ = run(model, inputs, encode="changed:threshold=100", frames_at_once=4)
    patches = report.videos[0].patches // 6
    assert [video.encoded_per_frame for video in report.videos] == [[patches, 0, 0, 0, patches, 0]] * 2


def test_whole_frames_alone() -> None:
    """What was stage 0: limit=0."""
    model = tiny.build("llava_onevision")
    inputs = tiny.FAMILIES["llava_onevision"].inputs(PROMPTS[:1])
    pixels = inputs["pixel_values_videos"][0]
    pixels[1:3], pixels[4:] = pixels[0], pixels[3]
    pixels[2, :, 0, 0] += 1  # one patch
    _, report, _ = run(model, inputs, encode="changed:threshold=0,limit=0")
    assert report.videos[0].encoded_per_frame == [36, 0, 36, 36, 0, 0]
    assert report.encoded == 0.5 and "encoded 50.0 % of the patches" in str(report)
    data = report.to_dict()["videos"][0]
    assert data["patches"] == 216 and data["encoded_per_frame"] == [36, 0, 36, 36, 0, 0]


def test_trim_takes_it_too() -> None:
    model = tiny.make("qwen3_vl")
    inputs = tiny.FAMILIES["qwen3_vl"].inputs(PROMPTS[:1])
    options: dict[str, Any] = {"retention": 0.4, "encode": "kept:threshold=0.3", "frames_at_once": 3}
    with sharpv.apply(model, **options):
        out = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    trimmed = sharpv.trim(model, inputs, **options)
    generated = model.generate(**trimmed, max_new_tokens=4, do_sample=False)
    assert generated[0, trimmed["input_ids"].shape[1] :].equal(out[0, inputs["input_ids"].shape[1] :])


def test_a_report_without_it_says_nothing_of_it() -> None:
    model, inputs = tiny.build("qwen3_vl"), tiny.FAMILIES["qwen3_vl"].inputs(PROMPTS)
    _, report, _ = run(model, inputs, frames_at_once=2)
    assert report.encoded == 1.0 and "encoded" not in str(report)
    assert report.videos[0].grid is None and report.videos[0].patches == 0


@pytest.mark.parametrize(
    ("family", "options", "sentence"),
    [
        (
            "perception_lm",
            {"encode": "changed"},
            "the vision tower of PerceptionLM cannot leave patches out: use encode='all'",
        ),
        ("pllava", {"frames_at_once": 2}, "PLLaVA does not encode frame by frame: leave frames_at_once out"),
    ],
)
def test_other_towers_are_refused(family: str, options: dict[str, Any], sentence: str) -> None:
    model = tiny.make(family)
    with pytest.raises(ValueError, match=sentence):
        sharpv.apply(model, **options)
    with pytest.raises(ValueError, match=sentence):
        sharpv.trim(model, {}, **options)
    assert sharpv.Pruning.of(model) is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"encode": "some"}, "unknown encode 'some'; known: all, changed, kept"),
        ({"encode": "kep"}, "unknown encode 'kep', did you mean 'kept'? known: all, changed, kept"),
        ({"encode": "changed:0.1,half=1"}, "encode 'changed' has no parameter 'half'; it has threshold, limit"),
        ({"encode": "changed:-1"}, "threshold must be a finite number of at least 0, got -1"),
        ({"encode": "changed:limit=2"}, "limit must lie in [0, 1], got 2"),
        ({"encode": "kept:share=0"}, "share must lie in (0, 1], got 0"),
        ({"frames_at_once": 0}, "frames_at_once must be a whole number of at least 1, got 0"),
        ({"frames_at_once": 2.5}, "frames_at_once must be a whole number of at least 1, got 2.5"),
    ],
)
def test_wrong_options(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Encoding(**options)


def test_kept_has_to_know_how_many() -> None:
    with pytest.raises(ValueError, match="encode='kept' has to know how many tokens will be kept: pass retention"):
        sharpv.Config(encode="kept")
    for known in ({"retention": 0.2}, {"max_tokens": 9}, {"encode": "kept:share=0.2"}):
        assert sharpv.Config(**{"encode": "kept", **known})
