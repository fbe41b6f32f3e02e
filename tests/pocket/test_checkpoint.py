"""The checkpoint that ships with the package answers questions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sharpv import pocket
from sharpv.evaluation.scoring import (
    evaluation_set,
    extract_features,
    generated_answer,
    generation_agrees,
    score,
    summarise,
)
from training.pocket.clips import CLIPS


@pytest.fixture(scope="module")
def loaded():  # type: ignore[no-untyped-def]
    return pocket.load()


@pytest.fixture(scope="module")
def scored(loaded):  # type: ignore[no-untyped-def]
    evaluation = evaluation_set(videos=24)
    features = extract_features(loaded[0], evaluation)
    return evaluation, features, score(loaded[0], evaluation, features)


def decoded(path: Path, frames: int) -> np.ndarray:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        video = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(video)[((np.arange(frames) + 0.5) * len(video) / frames).astype(int)]


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in pocket.checkpoint_path().iterdir()) < 10e6


def test_it_is_far_better_than_the_majority_answer(scored) -> None:  # type: ignore[no-untyped-def]
    summary = summarise(scored[2])
    assert summary.mean > 0.85
    assert summary.mean > summary.majority + 0.4


def test_it_needs_to_see(loaded, scored) -> None:  # type: ignore[no-untyped-def]
    evaluation, features, records = scored
    blind = summarise(score(loaded[0], evaluation, torch.zeros_like(features)))
    assert summarise(records).mean > blind.mean + 0.3


def test_the_packed_score_is_that_of_generate(loaded, scored) -> None:  # type: ignore[no-untyped-def]
    evaluation, _, records = scored
    agree, asked = generation_agrees(*loaded, evaluation, records, limit=12)
    assert asked == 12
    assert agree == asked


@pytest.mark.parametrize("name", CLIPS)
def test_it_answers_about_a_decoded_clip(loaded, name: str) -> None:  # type: ignore[no-untyped-def]
    path = pocket.sample_clip(name)
    assert path.stat().st_size < 100_000
    facts = json.loads(path.with_suffix(".json").read_text())
    video = decoded(path, facts["frames"])
    short = [question for question in facts["questions"] if question["form"] == "short"]
    right = [generated_answer(*loaded, video, question["prompt"]) == question["answer"] for question in short]
    assert np.mean(right) > 0.6


def test_unknown_clips_are_named() -> None:
    with pytest.raises(ValueError, match="known clips"):
        pocket.sample_clip("nothing")
