"""The other papers' methods against slow transcriptions of their formulas, and examples worked by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sharpv import Budget, SharpV
from sharpv.methods import EVS, CDPruner, DivPrune, DyCoke, FastVID, Pool, SharpVPlus, Subsample, VidCom2
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


def slow_cdpruner(x: Tensor, relevance: Tensor, count: int) -> list[int]:
    """Each time the item whose subset has the largest determinant."""
    alike = torch.tensor([[cosine(a, b) for b in x] for a in x], dtype=torch.float64).fill_diagonal_(1)
    kernel = alike * torch.outer(relevance, relevance)
    chosen: list[int] = []
    while len(chosen) < count:
        rest = [i for i in range(len(x)) if i not in chosen]
        chosen.append(max(rest, key=lambda i: float(kernel[[*chosen, i]][:, [*chosen, i]].det())))
    return chosen


@SEEDS
@pytest.mark.parametrize("sign", [1.0, -1.0, None])
def test_cdpruner_is_its_formula(seed, sign):
    x, question = features(4, 9, 16, seed=seed), features(16, seed=seed + 100)
    method = CDPruner() if sign is None else CDPruner(sign=sign).for_question(question)
    kept = method.select(x, Budget(retention=16 / 36)).keep
    for frame, mask in zip(x, kept):
        relevance = torch.ones(9, dtype=torch.float64)
        if sign is not None:
            near = torch.tensor([sign * cosine(token, question) for token in frame], dtype=torch.float64)
            relevance = (near - near.min()) / (near.max() - near.min()) + 1e-6
        assert set(mask.nonzero().flatten().tolist()) == set(slow_cdpruner(frame, relevance, 4))


def test_cdpruner_wants_a_question_of_the_features_width():
    with pytest.raises(ValueError, match=r"the question must be \(16,\), as the features, got \(8,\)"):
        CDPruner().for_question(torch.ones(8)).select(features(2, 4, 16), Budget(retention=0.5))


def test_cdpruner_by_hand():
    # nearest to the question is token 0; token 1 repeats it, so token 2, at a right angle, comes next
    x = torch.tensor([[[1.0, 0.1], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.2]]])
    scores = CDPruner(question=torch.tensor([1.0, 0.3])).score(x).tokens
    assert scores[0].argmax() == 0
    assert places(CDPruner(question=torch.tensor([1.0, 0.3])).select(x, Budget(retention=0.5)).keep) == {(0, 0), (0, 2)}


@SEEDS
def test_divprune_is_its_formula(seed):
    x = features(4, 9, 16, seed=seed)
    frame = DivPrune().select(x, Budget(retention=12 / 36)).keep
    assert places(frame) == {(t, i) for t in range(4) for i in slow_divprune(x[t], 3)}
    video = DivPrune(scope="video").select(x, Budget(retention=12 / 36)).keep
    assert set(video.flatten().nonzero().flatten().tolist()) == set(slow_divprune(x.flatten(0, 1), 12))


@SEEDS
@pytest.mark.parametrize("budget", [Budget(), Budget(retention=0.3), Budget(max_tokens=7)])
def test_sharpv_plus_has_sharpv_s_counts_and_the_likeliest_subset(seed, budget):
    x = features(4, 9, 16, seed=seed)
    keep, sharpv = SharpVPlus().select(x, budget).keep, SharpV().select(x, budget)
    assert torch.equal(keep.sum(dim=1), sharpv.keep.sum(dim=1))
    for frame, mask, tokens in zip(x, keep, sharpv.scores.tokens.double()):
        worth = (tokens / tokens.max()).clamp(min=1e-3) ** 0.25
        assert set(mask.nonzero().flatten().tolist()) == set(slow_cdpruner(frame, worth, int(mask.sum())))


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


def slow_fastvid(x: Tensor, kept: int, method: FastVID) -> tuple[set[tuple[int, int]], dict[tuple[int, int], Tensor]]:
    """Kept places and what the anchors carry."""
    frames, size, width = x.shape
    means = [x[t].mean(0) for t in range(frames)]
    alike = {t: cosine(means[t], means[t + 1]) for t in range(frames - 1)}
    least = sorted(alike, key=lambda t: (alike[t], t))[: method.segments - 1]
    cuts = [t for t in range(frames - 1) if alike[t] < method.similarity or t in least]
    bounds = [0, *(t + 1 for t in cuts), frames]
    each = kept // frames
    n_c = math.floor(each * method.merged)
    chosen = {(t, i) for t in range(frames) for i in sorted(range(size), key=lambda i: -x[t, i].norm())[: each - n_c]}
    others = {t: [i for i in range(size) if (t, i) not in chosen] for t in range(frames)}
    carried = {}
    for start, stop in pairwise(bounds):
        holders = list(range(stop - 1, start - 1, -method.every))
        for t in holders:
            apart = {(i, j): float((x[t, i] - x[t, j]).norm()) / math.sqrt(width) for i in others[t] for j in others[t]}
            rho = {i: math.exp(-sum(sorted(apart[i, j] ** 2 for j in others[t])[:4]) / 4) for i in others[t]}
            delta = {}
            for i in others[t]:
                denser = [apart[i, j] for j in others[t] if rho[j] > rho[i]]
                delta[i] = min(denser) if denser else max(apart.values())
            gamma = {i: rho[i] * delta[i] for i in others[t]}
            anchors = sorted(others[t], key=lambda i: -gamma[i])[: n_c * (stop - start) // len(holders)]
            joined = {a: [] for a in anchors}
            for s in range(start, stop):
                for i in others[s]:
                    joined[max(anchors, key=lambda a: cosine(x[s, i], x[t, a]))].append(x[s, i])
            for a, members in joined.items():
                w = max(method.own, 1 / (len(members) + 1))
                carried[t, a] = w * x[t, a] + (1 - w) * torch.stack(members).mean(0)
    return chosen | set(carried), carried


@SEEDS
@pytest.mark.parametrize("segments", [1, 3])
def test_fastvid_is_its_formula(seed, segments):
    frames, size, width = 12, 10, 16
    x = features(1, size, width, seed=seed) + 0.3 * features(frames, size, width, seed=seed + 10)
    x[7:] += features(1, size, width, seed=seed + 20)  # a cut
    method = FastVID(segments=segments, similarity=0.8)
    expected, carried = slow_fastvid(x, kept=60, method=method)
    assert carried
    selection = method.select(x, Budget(retention=60 / 120))
    keep, total = places(selection.keep), 60
    assert len(keep) == total and expected <= keep
    for place, feature in carried.items():
        torch.testing.assert_close(selection.features[place], feature.float().to(x.dtype), atol=1e-4, rtol=0)
    for place in keep - set(carried):
        torch.testing.assert_close(selection.features[place], x[place], atol=1e-6, rtol=0)


def test_pool_takes_the_mean_of_the_nearest_frames():
    x = torch.arange(8.0).view(8, 1, 1).expand(8, 2, 1)
    selection = Pool().select(x, Budget(retention=0.25))  # frames 2 and 6; 4 goes to the earlier
    assert places(selection.keep) == {(2, 0), (2, 1), (6, 0), (6, 1)}
    assert selection.features[selection.keep].flatten().tolist() == [2.0, 2.0, 6.0, 6.0]


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


@pytest.mark.parametrize("size", [1, 49, 50, 64, 169, 196])
@pytest.mark.parametrize("tenths", range(11))
def test_dycoke_keeps_the_floor_of_the_rest(size, tenths):
    kept = DyCoke(pruned=tenths / 10).select(features(5, size, 8)).keep.sum(dim=1).tolist()
    later = size * (10 - tenths) // 10
    assert kept == [size, later, later, later, size]


def test_dycoke_ranks_frames_that_are_nearly_alike():
    x = features(1, 64, 256).repeat(2, 1, 1)
    change = torch.arange(64) * 1e-5
    x[1] += change[:, None] * features(64, 256, seed=1)
    alike = torch.cosine_similarity(*x.double(), dim=-1)
    assert alike.min() > 1 - 1e-6  # float32 knows 1 - cos to 1e-7
    expected = set(alike.argsort()[:32].tolist())
    assert {i for _, i in places(DyCoke(pruned=0.5).select(x).keep[1:])} == expected


def test_subsample_keeps_whole_frames():
    keep = Subsample().select(features(8, 4, 4), Budget(retention=0.5)).keep
    assert keep.sum(dim=1).tolist() == [0, 4, 0, 4, 0, 4, 0, 4]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda: VidCom2(temperature=0.0), "temperature must be above 0, got 0.0"),
        (lambda: VidCom2(channels=1.5), r"channels must lie in \(0, 1\], got 1.5"),
        (lambda: DyCoke(pruned=-0.1), r"pruned must lie in \[0, 1\], got -0.1"),
        (lambda: FastVID(own=2.0), r"own must lie in \[0, 1\], got 2.0"),
        (lambda: FastVID(every=0), "every must be a whole number of at least 1, got 0"),
        (lambda: SharpVPlus(power=-1), "power must be a finite number of at least 0, got -1"),
        (lambda: CDPruner(sign=0.5), "sign must be 1.0 or -1.0, got 0.5"),
        (lambda: DivPrune(scope="clip"), "scope must be 'frame' or 'video', got 'clip'"),
    ],
)
def test_bad_parameters_are_refused(method, message):
    with pytest.raises(ValueError, match=message):
        method()
