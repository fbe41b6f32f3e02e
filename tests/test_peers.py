"""The other papers' methods against slow transcriptions of their formulas, and examples worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sharpv import Budget
from sharpv.methods import EVS, DivPrune, DyCoke, Subsample, VidCom2
from sharpv.methods.divprune import farthest_first


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def places(keep: Tensor) -> set[tuple[int, int]]:
    return {(int(frame), int(token)) for frame, token in keep.nonzero()}


def best(worth: dict[tuple[int, int], float], count: int) -> set[tuple[int, int]]:
    return set(sorted(worth, key=lambda place: (-worth[place], place))[:count])


SEEDS = pytest.mark.parametrize("seed", range(3))


@SEEDS
@pytest.mark.parametrize("anchor", [True, False])
def test_evs_is_its_formula(seed, anchor):
    frames, size, kept = 6, 8, 24
    x = features(frames, size, 16, seed=seed)
    worth = {}
    for i in range(size):
        for t in range(1, frames):
            worth[t, i] = 1 - cosine(x[t, i], x[t - 1, i])
        worth[0, i] = math.inf if anchor else worth[1, i]
    assert places(EVS(anchor_frame=anchor).select(x, Budget(retention=kept / 48)).keep) == best(worth, kept)


def test_evs_by_hand():
    # 1 - cos: frame 1 turns token 0 by 90 degrees (1) and leaves token 1 (0), frame 2 reverses token 1 (2)
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 2.0]], [[0.0, 1.0], [0.0, -1.0]]])
    scores = EVS().score(x).tokens
    torch.testing.assert_close(scores[1:], torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    assert places(EVS().select(x, Budget(retention=0.5)).keep) == {(0, 0), (0, 1), (2, 1)}
    assert places(EVS(anchor_frame=False).select(x, Budget(retention=0.5)).keep) == {(0, 0), (1, 0), (2, 1)}


def slow_vidcom2(x: Tensor, kept: int, temperature: float = 0.01) -> set[tuple[int, int]]:
    frames, size, width = x.shape
    every = [(t, i) for t in range(frames) for i in range(size)]
    variance = [float(torch.stack([x[p] for p in every])[:, c].var(unbiased=False)) for c in range(width)]
    channels = sorted(range(width), key=lambda c: (variance[c], c))[: width // 2]
    y = {p: x[p][channels] / x[p][channels].norm() for p in every}
    whole = sum(y.values()) / len(every)
    centre = [sum(y[t, i] for i in range(size)) / size for t in range(frames)]

    def g(a: Tensor, b: Tensor) -> float:
        return sum(math.exp(-(float((a - b).norm()) ** 2) / (2 * 2.0**k)) for k in range(-3, 2))

    video = {p: g(y[p], whole) for p in every}
    both = {p: video[p] + g(y[p], centre[p[0]]) for p in every}
    u = [-sum(video[t, i] for i in range(size)) / size for t in range(frames)]
    weights = [math.exp((value - max(u)) / temperature) for value in u]
    share = kept / len(every)
    chosen: set[tuple[int, int]] = set()
    for t in range(frames):
        sigma = min(1.0, share * (1 + weights[t] / sum(weights) - 1 / frames))
        count = min(max(round(sigma * size), 1), size)
        chosen |= set(sorted(((t, i) for i in range(size)), key=both.__getitem__)[:count])
    while len(chosen) > kept:
        chosen.remove(max(chosen, key=both.__getitem__))
    while len(chosen) < kept:
        chosen.add(min(set(every) - chosen, key=both.__getitem__))
    return chosen


@SEEDS
@pytest.mark.parametrize("kept", [9, 24, 44])
def test_vidcom2_is_its_formula(seed, kept):
    x = features(6, 8, 16, seed=seed)
    x[2] += 1.0  # a frame that stands out
    assert places(VidCom2().select(x, Budget(retention=kept / 48)).keep) == slow_vidcom2(x, kept)


def test_vidcom2_by_hand():
    # one frame of two opposite tokens on the one channel that counts: the centre is 0, |y - c| = 1 for both
    x = torch.tensor([[[1.0, 5.0], [-1.0, -5.0]]])
    kernels = sum(math.exp(-1 / (2 * 2.0**k)) for k in (-3, -2, -1, 0, 1))
    scores = VidCom2().score(x)
    torch.testing.assert_close(scores.tokens, torch.full((1, 2), -2 * kernels))
    assert scores.demand.tolist() == [1.0]


def slow_divprune(x: Tensor, count: int) -> list[int]:
    distance = [[1 - cosine(a, b) for b in x] for a in x]
    others = range(len(x))
    seed = max(others, key=lambda i: min(distance[i][j] for j in others if j != i))
    chosen = [seed]
    while len(chosen) < count:
        rest = [j for j in others if j not in chosen]
        chosen.append(max(rest, key=lambda j: min(distance[k][j] for k in chosen)))
    return chosen


@SEEDS
def test_divprune_is_its_formula(seed):
    x = features(4, 9, 16, seed=seed)
    frame = DivPrune().select(x, Budget(retention=12 / 36)).keep
    assert places(frame) == {(t, i) for t in range(4) for i in slow_divprune(x[t], 3)}
    video = DivPrune(scope="video").select(x, Budget(retention=12 / 36)).keep
    assert set(video.flatten().nonzero().flatten().tolist()) == set(slow_divprune(x.flatten(0, 1), 12))


def test_divprune_by_hand():
    # 225 degrees lies farthest from its nearest (100); then 10, 145 degrees away; then 100, 90 degrees from 10
    angles = torch.tensor([0.0, 10.0, 90.0, 100.0, 225.0]).deg2rad()
    x = torch.stack([angles.cos(), angles.sin()], dim=-1)
    assert farthest_first(x[None], 3)[0].tolist() == [5, 1, 5, 2, 0]


def test_the_seed_of_divprune_is_found_across_blocks():
    x = features(1100, 8)
    nearest = (1 - torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(x, dim=1).T).fill_diagonal_(
        2
    )
    assert farthest_first(x[None], 1)[0].argmin() == nearest.amin(dim=1).argmax()


@SEEDS
def test_dycoke_is_its_formula(seed):
    x = features(7, 10, 16, seed=seed)
    expected = set()
    for start in (0, 4):
        expected |= {(start, i) for i in range(10)}
        for frame, reference in ((1, 0), (2, 0), (3, 2)):
            if start + frame < 7:
                worth = {(start + frame, i): -cosine(x[start + frame, i], x[start + reference, i]) for i in range(10)}
                expected |= best(worth, 3)
    assert places(DyCoke().select(x).keep) == expected


def test_subsample_keeps_whole_frames():
    keep = Subsample().select(features(8, 4, 4), Budget(retention=0.5)).keep
    assert keep.sum(dim=1).tolist() == [0, 4, 0, 4, 0, 4, 0, 4]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda: VidCom2(temperature=0.0), "temperature must be positive, got 0.0"),
        (lambda: VidCom2(channels=1.5), r"channels must lie in \(0, 1\], got 1.5"),
        (lambda: DyCoke(pruned=-0.1), r"pruned must lie in \[0, 1\], got -0.1"),
        (lambda: DivPrune(scope="clip"), "scope must be 'frame' or 'video', got 'clip'"),
    ],
)
def test_bad_parameters_are_refused(method, message):
    with pytest.raises(ValueError, match=message):
        method()
