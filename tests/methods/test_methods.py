"""Methods as pure functions of features: corner cases, refusals, and no host synchronisation."""

from __future__ import annotations

import re

import pytest
import torch

import sharpv
import tiny
from sharpv import Budget, SharpV
from sharpv.methods import METHODS, CDPruner, Random, Uniform
from sharpv.methods.budget import Present
from tiny import Clip
from variants import ALL

KNOWN = "cdpruner, divprune, dycoke, evs, fastvid, pool, random, sharpv, sharpv+, subsample, uniform, vidcom2"
EVERY = pytest.mark.parametrize(("method", "retention"), ALL)


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("method", "retention"), [pair for pair in ALL if not isinstance(pair[0], Random)])
@pytest.mark.parametrize("options", [{}, {"max_tokens": 9, "min_tokens_per_frame": 1}])
def test_choosing_compiles_without_a_break(method, retention, options):
    """As one graph; drawing random numbers from a seed is what torch.compile cannot take in."""
    torch.compiler.reset()  # each method is another program
    clip, budget, there = features(7, 12, 16), Budget(retention, **options), Present.everywhere(7, 12)
    compiled = torch.compile(lambda video: method.choose(video, budget, there).keep, fullgraph=True, backend="eager")
    assert torch.equal(compiled(clip), method.choose(clip, budget, there).keep)


@EVERY
@pytest.mark.parametrize("options", [{}, {"max_tokens": 9}, {"min_tokens_per_frame": 1}])
def test_choosing_never_synchronises_with_the_host(method, retention, options):
    # a meta tensor has no values: reading one raises
    ghost = torch.empty(8, 16, 32, device="meta")
    budget = Budget(retention=retention, **options)
    there = Present.everywhere(8, 16, "meta")
    assert method.choose(ghost, budget, there).keep.shape == (8, 16)


@EVERY
@pytest.mark.parametrize("shape", [(1, 9, 8), (5, 1, 8), (1, 1, 8), (3, 7, 1), (33, 4, 4)])
def test_odd_shapes(method, retention, shape):
    keep = method.select(features(*shape), Budget(retention=retention)).keep
    assert keep.shape == shape[:2] and keep.dtype == torch.bool and keep.any()


@EVERY
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_features_and_zero_vectors(method, retention, value):
    keep = method.select(torch.full((4, 9, 8), value), Budget(retention=retention)).keep
    assert keep.any()


def test_sharpv_on_a_still_video_keeps_the_first_frame_only():
    still = features(1, 16, 8).expand(5, -1, -1)
    counts = SharpV().select(still).keep.sum(dim=1)
    assert counts[0] > 0 and counts[1:].tolist() == [0, 0, 0, 0]


def test_sharpv_on_equal_features_keeps_one_token():
    assert SharpV().select(torch.ones(4, 9, 8)).keep.nonzero().tolist() == [[0, 0]]


def test_sharpv_keeps_more_of_a_moving_frame():
    video = features(1, 16, 256).repeat(3, 1, 1)
    video[2, :8] = features(8, 256, seed=1)
    keep = SharpV().select(video).keep
    assert keep[1].sum() == 0
    assert keep[2].sum() > 0 and not keep[2, 8:].any()


def test_sharpv_manual_mode_keeps_what_exceeds_the_threshold():
    video = features(6, 16, 8)
    method = SharpV(mode="manual", threshold=1.9, weight=0.5)
    scores = method.score(video)
    assert torch.equal(method.select(video).keep, scores.tokens > 1.9)


def test_uniform_is_even():
    keep = Uniform().select(features(3, 10, 4), Budget(retention=0.5)).keep
    assert keep.tolist() == [[False, True] * 5] * 3


def test_random_depends_on_its_seed_and_copies_counts():
    video = features(6, 16, 8)
    budget = Budget(retention=0.3)
    first, again, other = (Random(seed=seed).select(video, budget).keep for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    copied = Random(counts_of=SharpV()).select(video).keep
    assert torch.equal(copied.sum(1), SharpV().select(video).keep.sum(1))


@EVERY
def test_tokens_that_are_not_there_are_never_kept(method, retention):
    video, present = features(5, 9, 16), torch.rand(5, 9, generator=torch.Generator().manual_seed(2)) < 0.4
    keep = method.select(video, Budget(retention=retention), present).keep
    assert keep.any() and not (keep & ~present).any()
    if retention is not None:
        assert keep.sum() == round(retention * int(present.sum()))
    assert torch.equal(
        method.select(video, Budget(retention=retention), torch.ones(5, 9, dtype=torch.bool)).keep,
        method.select(video, Budget(retention=retention)).keep,
    )
    with pytest.raises(ValueError, match=r"present must be bool \(5, 9\), got torch.bool \(5,\)"):
        method.select(video, Budget(retention=retention), present[:, 0])
    with pytest.raises(ValueError, match="none of its tokens is present"):
        method.select(video, Budget(retention=retention), present & False)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(method, retention, dtype):
    video = features(4, 9, 16).to(dtype)
    budget = Budget(retention=retention)
    assert torch.equal(method.select(video, budget).keep, method.select(video.float(), budget).keep)


@EVERY
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_features_are_refused_with_the_place_named(method, retention, value):
    video = features(4, 9, 8)
    video[2, 5, 1] = value
    with pytest.raises(ValueError, match=f"the feature {value} at frame 2, token 5"):
        method.select(video, Budget(retention=retention))


@EVERY
def test_bad_features_are_refused(method, retention):
    budget = Budget(retention=retention)
    with pytest.raises(ValueError, match=r"the video is empty: its features have shape \(0, 9, 8\)"):
        method.select(torch.empty(0, 9, 8), budget)
    with pytest.raises(ValueError, match=r"must be \(frames, tokens, channels\), got shape \(9, 8\)"):
        method.select(torch.ones(9, 8), budget)
    with pytest.raises(TypeError, match="must be floating point, got torch.int64"):
        method.select(torch.ones(4, 9, 8, dtype=torch.long), budget)


FIXED = [method() for method in METHODS.values() if not method.adaptive]


@pytest.mark.parametrize("method", FIXED)
def test_a_method_that_cannot_decide_needs_a_retention(method):
    with pytest.raises(ValueError, match="keeps a fixed share: pass retention="):
        method.select(features(2, 4, 4))


def test_registry():
    assert sharpv.list_methods() == sorted(METHODS) == KNOWN.split(", ")
    assert METHODS.make("sharpv:weight=2.0", "method") == METHODS.make("sharpv:2.0", "method") == SharpV(weight=2.0)
    assert repr(SharpV()) == "SharpV(weight=1.0, mode='adaptive', threshold=1.6)"
    with pytest.raises(ValueError, match=re.escape(f"unknown method 'magic'; known: {KNOWN}")):
        METHODS.make("magic", "method")
    with pytest.raises(ValueError, match="unknown method 'DivPrun', did you mean 'divprune'"):
        METHODS.make("DivPrun", "method")
    with pytest.raises(TypeError, match="must be a name or an instance of a method, got int"):
        METHODS.make(3, "method")


@pytest.mark.parametrize(("options", "message"), [({"mode": "auto"}, "got 'auto'"), ({"weight": -1.0}, "got -1.0")])
def test_sharpv_refuses_bad_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        SharpV(**options)


def test_each_video_is_pruned_for_its_own_question(model, family, monkeypatch):
    asked: list[torch.Tensor] = []
    about = CDPruner.for_question
    monkeypatch.setattr(
        CDPruner, "for_question", lambda self, question: asked.append(question) or about(self, question)
    )
    prompts = [[10, 11, Clip(1), 12, 13], [10, Clip(2), 15], [14, 15, Clip(1)]]
    inputs = tiny.FAMILIES[family].inputs(prompts)
    trimmed = sharpv.trim(model, inputs, "cdpruner", retention=0.5)
    assert len(asked) == 3 and trimmed["input_ids"].shape[1] < inputs["input_ids"].shape[1]
    word = model.get_input_embeddings()(torch.tensor(15))  # what is asked about the second; the first is asked 12, 13
    assert torch.cosine_similarity(asked[1], word, dim=0) > max(0.3, torch.cosine_similarity(asked[0], word, dim=0))
