"""One prefill and many questions: the same answers and logits as asking one by one, and the video read once."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import checkpoints
import sharpv
from sharpv import asking
from sharpv.kvcache import KeepLayers
from sharpv.kvcache.cache import CACHE
from sharpv.pruning import Pruning
from sharpv.request import copy_of
from sharpv.video.clip import Clip

QUESTIONS = ["What moves?", "Is there a dog, or a cat?", "Why"]
STAGES: dict[str, Any] = {
    "none": None,
    "paper": 0.98,
    "layers": KeepLayers((1,)),
    "contribution": "contribution:kv_budget=0.5,rows=2",
    "vtw": "vtw:2",
}


def clip_of(frames: int = 6, seed: int = 0) -> Clip:
    """A square that moves over noise."""
    pictures = np.random.default_rng(seed).integers(0, 255, (1, 64, 64, 3), dtype=np.uint8).repeat(frames, 0)
    for frame in range(frames):
        pictures[frame, 8:24, 6 * frame : 6 * frame + 16] = 200
    return Clip(pictures, np.arange(frames) / 2.0, 2.0, frames / 2, Path("clip.mp4"))


@pytest.fixture(scope="module", params=[name for name in checkpoints.PROCESSORS if name != "pllava"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = checkpoints.write(tmp_path_factory.mktemp(request.param), request.param)
    return asking.load(str(folder))


def alone(model: Any, processor: Any, clip: Clip, question: str, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """New ids and logits, asked by itself."""
    inputs = asking.encode(model, processor, clip, question)
    with sharpv.apply(model, **options):
        out = model.generate(
            **inputs, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    return out.sequences[0, inputs["input_ids"].shape[1] :], torch.stack(out.logits)


def shared(session: sharpv.Session, question: str) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = session._question(question)
    with session._pruned():
        out = session.model.generate(
            **inputs,
            **{CACHE: copy_of(session._cache)},
            max_new_tokens=4,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return out.sequences[0, inputs["input_ids"].shape[1] :], torch.stack(out.logits)


@pytest.mark.parametrize("stage", STAGES)
def test_it_equals_asking_one_by_one(loaded, stage):
    model, processor = loaded
    options = {"retention": 0.4, "memory": STAGES[stage]}
    if stage == "vtw" and model.config.model_type == "qwen3_5":
        with pytest.raises(ValueError, match="needs attention in every layer"):
            sharpv.Session(model, processor, clip_of(), **options)
        return
    session = sharpv.Session(model, processor, clip_of(), **options)
    for question in (*QUESTIONS, QUESTIONS[0]):
        ids, logits = shared(session, question)
        expected, expected_logits = alone(model, processor, clip_of(), question, **options)
        torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=0)
        assert ids.equal(expected)
    assert Pruning.of(model) is None


@pytest.mark.parametrize("stage", ["none", "layers", "contribution"])
def test_questions_in_a_batch_are_answered_as_alone(loaded, stage):
    session = sharpv.Session(*loaded, clip_of(), retention=0.4, memory=STAGES[stage])
    said = [session.ask(question, max_new_tokens=4).text for question in QUESTIONS]
    assert session.ask_all(QUESTIONS, max_new_tokens=4) == said
    assert session.ask_all(QUESTIONS[:1], max_new_tokens=4) == said[:1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return asking.load(str(checkpoints.write(tmp_path_factory.mktemp("qwen"), "qwen2_5_vl")))


def test_the_video_is_read_once(pair, monkeypatch):
    model, processor = pair
    calls = {"tower": 0, "processor": 0}
    tower, kind = model.model.get_video_features, type(processor)
    called = kind.__call__

    def encode(*args: Any, **kwargs: Any) -> Any:
        calls["tower"] += 1
        return tower(*args, **kwargs)

    def process(*args: Any, **kwargs: Any) -> Any:
        calls["processor"] += 1
        return called(*args, **kwargs)

    encode.__signature__ = inspect.signature(tower)  # type: ignore[attr-defined]
    monkeypatch.setattr(model.model, "get_video_features", encode)
    monkeypatch.setattr(kind, "__call__", process)
    session = sharpv.Session(model, processor, clip_of(), retention=0.4)
    assert calls == {"tower": 1, "processor": 2}
    before = [layer.keys.clone() for layer in session._cache.layers]
    answers = [session.ask(question, max_new_tokens=3) for question in QUESTIONS * 2]
    assert calls == {"tower": 1, "processor": 2}
    assert [each.text for each in answers[:3]] == [each.text for each in answers[3:]]
    assert all(map(torch.equal, before, (layer.keys for layer in session._cache.layers)))
    full, kept = session.tokens
    assert kept < full and session.report.kept < session.report.total


def test_two_clips_a_still_and_a_system_prompt(pair):
    model, processor = pair
    still = np.full((48, 48, 3), 90, np.uint8)
    clips = [clip_of(), clip_of(4, seed=1)]
    session = sharpv.Session(model, processor, clips, retention=0.4, images=[still], system="Be brief.")
    assert len(session.report.videos) == 2
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "video"}] * 2 + [{"type": "image"}, {"type": "text", "text": "And?"}]},
    ]
    inputs = asking.encode_turns(model, processor, turns, clips, [still])
    with sharpv.apply(model, retention=0.4):
        assert session.ask("And?", max_new_tokens=4) is not None
        expected = asking.answer(model, processor, inputs, 4)
    assert session.ask("And?", max_new_tokens=4).text == expected.text


def test_it_uses_the_pruning_that_is_there_or_refuses(pair):
    model, processor = pair
    with sharpv.apply(model, retention=0.4) as pruning:
        session = sharpv.Session(model, processor, clip_of(), retention=0.4)
        session.ask("What?", max_new_tokens=2)
        assert pruning.active and pruning.report == session.report
        with pytest.raises(ValueError, match="already pruned by sharpv"):
            sharpv.Session(model, processor, clip_of(), retention=0.3)
    assert session.ask("What?", max_new_tokens=2).tokens == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"config": "cdpruner", "retention": 0.5}, "method 'cdpruner' has to know the question before"),
        ({"memory": "fastv"}, "memory='fastv' has to know the question before"),
        ({"retention": 2}, "retention is the kept share and must lie in"),
    ],
)
def test_what_has_to_know_the_question_is_refused(pair, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        sharpv.Session(*pair, clip_of(), **options)
    assert Pruning.of(pair[0]) is None


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question(pair, question):
    session = sharpv.Session(*pair, clip_of(), retention=0.4)
    with pytest.raises(ValueError, match="a question must hold some text"):
        session.ask(question)


def test_a_long_clip_is_continued_where_its_prompt_ends(pair):
    """Qwen2.5-VL's time index runs ahead of the text's."""
    model, processor = pair
    clip = clip_of(48)
    slow = Clip(clip.frames, clip.timestamps * 4, 0.5, 96.0, clip.source)
    session = sharpv.Session(model, processor, slow, retention=0.4)
    for question in QUESTIONS:
        _, logits = shared(session, question)
        _, expected = alone(model, processor, slow, question, retention=0.4)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (lambda session: session.ask(None), TypeError, "a question must be text, got NoneType"),
        (lambda session: session.ask_all("Who?"), TypeError, "ask_all takes a list of questions, got the text 'Who"),
        (lambda session: session.ask("Who?", num_beams=2), ValueError, "cannot generate with num_beams"),
        (lambda session: session.ask_all(["Who?"], use_cache=False), ValueError, "cannot generate with use_cache"),
        (lambda session: session.ask("Who?", streamer=object()), ValueError, "cannot generate with streamer"),
        (lambda session: session.ask("Who?", prompt_lookup_num_tokens=2), ValueError, "with prompt_lookup_num_tokens"),
    ],
)
def test_wrong_calls(pair, call, kind, sentence):
    session = sharpv.Session(*pair, clip_of(), retention=0.4)
    with pytest.raises(kind, match=sentence):
        call(session)
    assert session.ask_all([]) == []


@pytest.mark.parametrize("clip", ["clip.mp4", [], [1]])
def test_a_session_is_about_clips(pair, clip):
    with pytest.raises(TypeError, match="a session is about what sharpv.read_video returns"):
        sharpv.Session(*pair, clip)


def test_a_question_that_holds_a_placeholder_is_refused(pair):
    session = sharpv.Session(*pair, clip_of(), retention=0.4)
    with pytest.raises(ValueError, match="a new image or video in a later turn"):
        session.ask("What is <|video|> this?")
