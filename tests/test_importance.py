"""The paper's formulas, against slow transcriptions and by their properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sharpv.importance import (
    FRAMES_AT_ONCE,
    dissimilarity,
    frame_retention,
    importance,
    spatial_importance,
    temporal_importance,
)

shapes = st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 9))


def clip(shape: tuple[int, int, int], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow_dissim(a: list[float], b: list[float]) -> float:
    """sqrt(2 - 2 cos), in Python's floats."""
    dot = sum(x * y for x, y in zip(a, b))
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return math.sqrt(max(0.0, 2 - 2 * dot / norms))


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 10_000))
@example((4, 4, 1), 4)  # the third frame's tokens nearly cancel in their mean
def test_formulas_equal_a_slow_transcription(shape, seed):
    features = clip(shape, seed)
    frames, tokens, _ = shape
    rows = features.tolist()
    spatial = [
        [slow_dissim(token, [sum(c) / tokens for c in zip(*frame)]) for token in frame] if tokens > 1 else [0.0]
        for frame in rows
    ]
    temporal = [[slow_dissim(rows[t][i], rows[t - 1][i]) for i in range(tokens)] for t in range(1, frames)]
    weight = 0.7
    expected = [spatial[0]] + [[t + weight * s for t, s in zip(*pair)] for pair in zip(temporal, spatial[1:])]
    asked = [math.sqrt(sum(x * x for x in row)) / (2 * math.sqrt(tokens)) for row in [spatial[0], *temporal]]
    s, t = spatial_importance(features), temporal_importance(features)
    torch.testing.assert_close(importance(s, t, weight), torch.tensor(expected), atol=2e-3, rtol=0)
    torch.testing.assert_close(frame_retention(s, t), torch.tensor(asked), atol=2e-3, rtol=0)


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 10_000))
def test_ranges(shape, seed):
    features = clip(shape, seed)
    s, t = spatial_importance(features), temporal_importance(features)
    assert s.shape == shape[:2] and t.shape == (shape[0] - 1, shape[1])
    for part in (s, t):
        assert ((part >= 0) & (part <= 2 + 1e-5)).all()
    asked = frame_retention(s, t)
    assert ((asked >= 0) & (asked <= 1 + 1e-6)).all()


def test_dissimilarity_by_hand():
    right, up, left = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 5.0]), torch.tensor([-1.0, 0.0])
    assert dissimilarity(right, right) == 0
    assert dissimilarity(right, up).item() == pytest.approx(math.sqrt(2))
    assert dissimilarity(right, left).item() == pytest.approx(2)
    zero = torch.zeros(2)
    assert dissimilarity(zero, zero) == 0 and dissimilarity(zero, up) == 1


@pytest.mark.parametrize("channels", [1, 16, 897, 3584])
def test_a_still_frame_asks_for_nothing(channels):
    features = 7 * clip((1, 9, channels), 0).expand(9, -1, -1)
    asked = frame_retention(spatial_importance(features), temporal_importance(features))
    assert (asked[0] > 0 or channels == 1) and torch.equal(asked[1:], torch.zeros(8))
    alike = clip((9, 1, channels), 1).expand(-1, 12, -1)
    assert torch.equal(spatial_importance(alike), torch.zeros(9, 12))


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 8, 9])
def test_one_pass_equals_the_definition(frames, monkeypatch):
    features = clip((1, 11, 96), 0) + 0.1 * clip((frames, 11, 96), 1)
    spatial, temporal = (
        dissimilarity(features, features.mean(1, keepdim=True)),
        dissimilarity(features[1:], features[:-1]),
    )
    for at_once in (1, 3, 4, 100):
        monkeypatch.setitem(FRAMES_AT_ONCE, "cpu", at_once)
        torch.testing.assert_close(spatial_importance(features), spatial, atol=1e-5, rtol=0)
        torch.testing.assert_close(temporal_importance(features), temporal, atol=1e-5, rtol=0)


def test_one_frame_has_only_the_spatial_term():
    features = clip((1, 9, 16), 0)
    s, t = spatial_importance(features), temporal_importance(features)
    assert torch.equal(importance(s, t), s)


def test_half_precision_is_scored_in_float32():
    features = clip((4, 9, 64), 3)
    for dtype in (torch.float16, torch.bfloat16):
        half = features.to(dtype)
        assert spatial_importance(half).dtype == torch.float32
        assert torch.equal(temporal_importance(half), temporal_importance(half.float()))
        assert torch.equal(spatial_importance(half), spatial_importance(half.float()))
