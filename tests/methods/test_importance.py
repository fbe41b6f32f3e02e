"""The paper's formulas, against slow transcriptions and by their properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sharpv.methods.importance import (
    VALUES_AT_ONCE,
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
    torch.testing.assert_close(importance(s, t, weight), torch.tensor(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(frame_retention(s, t), torch.tensor(asked), atol=1e-5, rtol=0)


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
    for at_once in (1, 3 * 11 * 96, 4 * 11 * 96, 2**20):
        monkeypatch.setitem(VALUES_AT_ONCE, "cpu", at_once)
        torch.testing.assert_close(spatial_importance(features), spatial, atol=1e-5, rtol=0)
        torch.testing.assert_close(temporal_importance(features), temporal, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tremble", [1e-1, 1e-2, 1e-3, 1e-4])
def test_small_differences_are_not_lost(tremble):
    """Dot products in float32 know 1 - cos to 1e-7: a Dissim below 0.002 would be rounding."""
    features = clip((1, 11, 896), 0) + tremble * clip((6, 11, 896), 1)
    features[3] = features[2]
    precise = features.double()
    flat = clip((1, 1, 896), 2) + tremble * clip((2, 11, 896), 3)
    exact = flat.double()
    unit = torch.nn.functional.normalize
    temporal = (unit(precise[1:], dim=-1) - unit(precise[:-1], dim=-1)).norm(dim=-1)
    spatial = (unit(exact, dim=-1) - unit(exact.mean(1, keepdim=True), dim=-1)).norm(dim=-1)
    for found, expected in ((temporal_importance(features), temporal), (spatial_importance(flat), spatial)):
        torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=1e-12)
    assert torch.equal(temporal_importance(features)[2], torch.zeros(11))


@pytest.mark.parametrize("channels", [1, 3, 897, 8192])
def test_a_difference_in_length_alone_is_none(channels):
    first = clip((1, 5, channels), 0)
    features = torch.cat([first * factor for factor in (1.0, 3.0, 0.1, 7e4, 1 / 3)])
    assert torch.equal(temporal_importance(features), torch.zeros(4, 5))


def test_zero_vectors():
    features = torch.zeros(4, 2, 8)
    features[1:3, 0, 0] = 1.0
    assert temporal_importance(features).tolist() == [[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    assert spatial_importance(features).tolist() == [[0.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("at_once", [1, 2 * 11 * 96, 2**20])
def test_gradients_flow_and_change_nothing(at_once, monkeypatch):
    monkeypatch.setitem(VALUES_AT_ONCE, "cpu", at_once)
    features = clip((5, 11, 96), 0)
    plain = spatial_importance(features), temporal_importance(features)
    traced = features.clone().requires_grad_()
    spatial, temporal = spatial_importance(traced), temporal_importance(traced)
    assert torch.equal(spatial, plain[0]) and torch.equal(temporal, plain[1])
    (spatial.sum() + temporal.sum()).backward()
    assert traced.grad is not None and traced.grad.isfinite().all() and traced.grad.any()


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
