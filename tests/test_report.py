"""The report: three retentions that are never mixed, and the failure signatures in words."""

from __future__ import annotations

import json
import pickle

import pytest
import torch

import sharpv
import tiny
from sharpv.methods.importance import nearly_repeat
from sharpv.report import Report, VideoReport
from tiny import Clip


def video(kept: list[int], repeats: int = 0, sample: int = 0, size: int = 10) -> VideoReport:
    return VideoReport(sample, 1, size, size * len(kept), [list(range(count)) for count in kept], repeats)


def report(videos: list[VideoReport], flags: list[list[bool]] | None = None) -> Report:
    if flags is None:
        return Report("sharpv", 4, videos, kv_bytes=27_000_000, dense_kv_bytes=365_000_000)
    measured = [[0.25] * len(row) for row in flags]
    return Report("sharpv", 4, videos, "similarity to the input", measured, flags, 0, 27_000_000, 365_000_000)


def test_the_line():
    made = report([video([5, 1, 2])], [[False], [True], [True], [False]])
    assert str(made) == (
        "sharpv: kept 8 of 30 visual tokens (kept 26.7 %, pruned 73.3 %); visual KV dropped in 2 of 4 layers; "
        "KV cache 27 MB, dense 365 MB (7.4 %)"
    )


def test_three_retentions():
    made = report([video([5, 1, 2]), video([10, 10, 2], sample=1)], [[True, False]] + [[False, False]] * 3)
    assert (made.kept, made.total) == (30, 60)
    assert made.retention == 0.5
    assert made.layer_retention == pytest.approx((30 * 4 - 8) / (60 * 4))
    assert made.kv_retention == pytest.approx(27 / 365)
    text = made.text()
    for words in ("before the LLM: kept 50.0 %", "over layers: kept 46.7 %", "KV bytes, text included: kept 7.4 %"):
        assert words in text
    assert "video 0, kept of 10 a frame: 5 1 2" in text and "layer 0, similarity" in text and "0.25* 0.25" in text


def test_over_pruning_is_named():
    (warning,) = report([video([1, 0, 0, 0, 0, 0, 0])]).warnings
    assert warning.startswith("video 0: over-pruned, kept 1.4 %, pruned 98.6 %")
    (warning,) = report([video([10, 8, 0, 0, 0, 0, 5])]).warnings
    assert warning.startswith("video 0: over-pruned scene, frames 2 to 5")
    assert report([video([10, 8, 0, 0, 0, 5])]).warnings == []


def test_redundancy_is_named():
    (warning,) = report([video([10, 10, 10, 10], repeats=30)]).warnings
    assert warning == "video 0: redundancy kept, 75.0 % of the survivors nearly repeat the frame before them"
    assert report([video([10, 10, 10, 10], repeats=20)]).warnings == []


def test_repeats_are_counted_where_both_frames_keep_the_place():
    still = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1)
    moving = torch.randn(4, 6, 32, generator=torch.Generator().manual_seed(1))
    keep = torch.tensor([[1, 1, 0, 0, 1, 0], [0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]).bool()
    places = keep.flatten().nonzero().squeeze(1)
    assert nearly_repeat(still[keep], places, 6) == 2 and nearly_repeat(moving[keep], places, 6) == 0
    assert nearly_repeat(still[:0, 0], places[:0], 6) == 0


def test_a_report_is_made_of_numbers():
    """It can be pickled, kept and compared, and holds nothing of the device."""
    model, inputs = tiny.build("qwen3_vl"), tiny.FAMILIES["qwen3_vl"].inputs([[10, Clip(1), 11]])
    with sharpv.apply(model, memory=tiny.HIGH_M) as pruning:
        model.generate(**inputs, max_new_tokens=2)
        first = pruning.report
        model.generate(**inputs, max_new_tokens=2)
    assert pickle.loads(pickle.dumps(first)) == first == pruning.report and first is not pruning.report
    assert b"torch" not in pickle.dumps(first) and b"numpy" not in pickle.dumps(first)
    (video,) = first.videos
    assert video.kept_tokens == first.kept and all(
        place < video.tokens_per_frame for row in video.kept for place in row
    )


def test_a_degraded_cache_is_named():
    (warning,) = report([video([5, 5])], [[False], [True], [False], [True]]).warnings
    assert "degraded cache, every layer from 3 of 4 on" in warning
    (warning,) = report([video([5, 5])], [[False], [True], [True], [True]]).warnings
    assert "every layer from 1 of 4 on" in warning
    assert report([video([5, 5])], [[True], [True], [True], [False]]).warnings == []


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
    assert facts["config"] == f"sharpv memory=cosine:threshold={tiny.HIGH_M}"


def test_without_a_cache_there_are_no_bytes(model, family):
    inputs = tiny.FAMILIES[family].inputs([[10, Clip(1), 11]])
    with sharpv.apply(model) as handle:
        model(**inputs, use_cache=False)
    assert handle.report.kv_bytes is None and handle.report.kv_retention is None
    assert "KV cache" not in str(handle.report) and handle.report.to_dict()["kv_bytes"]["stored"] is None
