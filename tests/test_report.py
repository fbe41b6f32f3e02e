"""The report: three retentions that are never mixed, and the failure signatures in words."""

from __future__ import annotations

import json

import pytest
import torch

import sharpv
import tiny
from sharpv.memory import MemoryTrace
from sharpv.models import Layout
from sharpv.prompt import PrunedVideo
from sharpv.report import Report
from tiny import Clip


def video(keep: torch.Tensor, features: torch.Tensor | None = None, sample: int = 0) -> PrunedVideo:
    frames, tokens = keep.shape
    if features is None:
        features = torch.randn(frames, tokens, 32, generator=torch.Generator().manual_seed(0))
    return PrunedVideo(sample, Layout(frames, 1, tokens), keep.sum(1).tolist(), features[keep], keep, frames)


def report(videos: list[PrunedVideo], flags: list[list[bool]] | None = None) -> Report:
    memory = None
    if flags is not None:
        rows = dict(enumerate(flags))
        memory = MemoryTrace(
            torch.ones(1, 1, dtype=torch.bool),
            torch.ones(1, 1, dtype=torch.bool),
            {layer: torch.full((len(row),), 0.25) for layer, row in rows.items()},
            {layer: torch.tensor(row) for layer, row in rows.items()},
            quantity="similarity to the input",
        )
    return Report("SharpV()", videos, 4, memory, 27_000_000, 365_000_000)


def counts(*kept: int, size: int = 10) -> torch.Tensor:
    return torch.arange(size) < torch.tensor(kept)[:, None]


def test_the_line():
    made = report([video(counts(5, 1, 2))], [[False], [True], [True], [False]])
    assert str(made) == (
        "sharpv: kept 8 of 30 visual tokens (kept 26.7 %, pruned 73.3 %); visual KV dropped in 2 of 4 layers; "
        "KV cache 27 MB, dense 365 MB (7.4 %)"
    )


def test_three_retentions():
    made = report([video(counts(5, 1, 2)), video(counts(10, 10, 2), sample=1)], [[True, False]] + [[False, False]] * 3)
    assert (made.kept, made.total) == (30, 60)
    assert made.retention == 0.5
    assert made.layer_retention == pytest.approx((30 * 4 - 8) / (60 * 4))
    assert made.kv_retention == pytest.approx(27 / 365)
    text = made.text()
    for words in ("before the LLM: kept 50.0 %", "over layers: kept 46.7 %", "KV bytes, text included: kept 7.4 %"):
        assert words in text
    assert "video 0, kept of 10 a frame: 5 1 2" in text and "layer 0, similarity" in text and "0.25* 0.25" in text


def test_over_pruning_is_named():
    (warning,) = report([video(counts(1, 0, 0, 0, 0, 0, 0, size=10))]).warnings
    assert warning.startswith("video 0: over-pruned, kept 1.4 %, pruned 98.6 %")
    (warning,) = report([video(counts(10, 8, 0, 0, 0, 0, 5))]).warnings
    assert warning.startswith("video 0: over-pruned scene, frames 2 to 5")
    assert report([video(counts(10, 8, 0, 0, 0, 5))]).warnings == []


def test_redundancy_is_named():
    still = torch.randn(1, 10, 32).expand(4, -1, -1)
    (warning,) = report([video(counts(10, 10, 10, 10), still)]).warnings
    assert warning == "video 0: redundancy kept, 75.0 % of the survivors nearly repeat the frame before them"
    assert report([video(counts(10, 10, 10, 10))]).warnings == []


def test_a_degraded_cache_is_named():
    (warning,) = report([video(counts(5, 5))], [[False], [True], [False], [True]]).warnings
    assert "degraded cache, every layer from 3 of 4 on" in warning
    (warning,) = report([video(counts(5, 5))], [[False], [True], [True], [True]]).warnings
    assert "every layer from 1 of 4 on" in warning
    assert report([video(counts(5, 5))], [[True], [True], [True], [False]]).warnings == []


def test_data(model, family):
    inputs = tiny.FAMILIES[family].inputs([[10, Clip(1), 11, Clip(2), 12], [10, Clip(3)]])
    with sharpv.apply(model, memory=tiny.HIGH_M) as handle:
        assert handle.report is None
        model.generate(**inputs, max_new_tokens=2)
    facts = json.loads(handle.report.to_json())
    assert facts == handle.report.to_dict()
    tokens = tiny.FAMILIES[family].tokens_of_frames
    assert facts["visual_tokens"]["total"] == sum(tokens(Clip(seed)) for seed in (1, 2, 3))
    assert [entry["sample"] for entry in facts["videos"]] == [0, 0, 1]
    assert facts["visual_tokens"]["kept"] == sum(sum(entry["kept_per_frame"]) for entry in facts["videos"])
    curve = facts["memory"]["measured"]
    assert len(curve) == tiny.LAYERS and {len(row) for row in curve if row} == {2}
    assert facts["method"] == "SharpV(weight=1.0, mode='adaptive', threshold=1.6)"


def test_without_a_cache_there_are_no_bytes(model, family):
    inputs = tiny.FAMILIES[family].inputs([[10, Clip(1), 11]])
    with sharpv.apply(model) as handle:
        model(**inputs, use_cache=False)
    assert handle.report.kv_bytes is None and handle.report.kv_retention is None
    assert "KV cache" not in str(handle.report) and handle.report.to_dict()["kv_bytes"]["stored"] is None
