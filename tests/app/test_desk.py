"""The app's desk: what it answers, and what it refuses in a sentence. Its face is tested in a browser."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from sharpv import asking
from sharpv.app.desk import SAMPLES, Desk, Limits, Wish, sample


@cache
def desk() -> Desk:
    return Desk("pocket", "cpu", limits=Limits(megabytes=1, seconds=3.9, frames=8, letters=60, tokens=8))


def generous() -> Desk:
    made = object.__new__(Desk)
    made.name, made.limits, made.model, made.processor = "pocket", Limits(), desk().model, desk().processor
    return made


@pytest.fixture
def wish() -> Wish:
    path, question = sample("mover")
    return Wish(path, question, 8, "sharpv", 0.25)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_are_answered(name):
    path, question = sample(name)
    asked, clip, known = generous().ask(Wish(path, question, 4, "sharpv", 0.25), None)
    assert asked.report.kept == round(0.25 * asked.report.total) and len(clip.frames) == 4
    assert asked.pruned is not None and asked.pruned.text and asked.dense is known.dense
    assert "knows only its own small synthetic world" in asked.note


def test_a_moved_budget_does_not_ask_the_dense_model_again(wish, monkeypatch):
    answers = []
    answer = asking.answer
    monkeypatch.setattr(asking, "answer", lambda *given: answers.append(1) or answer(*given))
    _, _, known = generous().ask(wish, None)
    moved, _, same = generous().ask(replace(wish, retention=None), known)
    assert same is known and len(answers) == 3 and moved.report.config == "sharpv"
    generous().ask(replace(wish, question="How many objects move?"), known)
    assert len(answers) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": None}, "Upload a clip, or pick a sample."),
        ({"question": "  "}, "Ask a question about the clip."),
        ({"question": "x" * 61}, "The question has 61 letters, more than 60."),
        ({"method": "magic"}, "There is no method 'magic'."),
        (
            {"method": "uniform", "retention": None},
            "The method uniform keeps a share that you choose: move the slider.",
        ),
        ({"retention": 0.0}, r"retention is the kept share and must lie in \(0, 1\], got 0.0"),
        ({"frames": 9}, "Frames must be 1 to 8, got 9."),
        ({}, "The clip is 4 s long, more than 3.9 s."),
    ],
)
def test_what_cannot_be_done_is_said(wish, change, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        desk().ask(replace(wish, **change), None)


def test_bad_files_are_refused_without_the_server_s_path(wish, tmp_path):
    bad = tmp_path / "holiday.mp4"
    bad.write_text("not a video\n" * 100)
    with pytest.raises(ValueError, match="^Cannot read video 'holiday.mp4': ") as refused:
        desk().ask(replace(wish, video=str(bad)), None)
    assert str(tmp_path) not in str(refused.value)
    bad.write_bytes(bytes(1_000_001))
    with pytest.raises(ValueError, match="^The clip has more than 1 MB.$"):
        desk().ask(replace(wish, video=str(bad)), None)


@pytest.mark.parametrize("name", ["megabytes", "seconds", "frames", "letters", "tokens"])
def test_limits_are_checked(name):
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})


def test_samples_are_clips():
    assert all(Path(sample(name)[0]).suffix == ".mp4" for name in SAMPLES)
