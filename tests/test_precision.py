"""What is measured and chosen does not depend on the precision around it: autocast, or another default dtype."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import sharpv
import tiny
from sharpv import Budget, Contribution, CosineThreshold, KeepLayers
from sharpv.kvcache import LayerView
from sharpv.methods import CDPruner, Method, Selection, Uniform
from sharpv.methods.budget import Present
from sharpv.methods.importance import dissimilarity, surroundings
from tiny import Clip
from variants import ALL

VARIANTS = [CDPruner(question=torch.linspace(-1, 1, 48))]
EVERY = pytest.mark.parametrize("method", [*dict.fromkeys(method for method, _ in ALL), *VARIANTS], ids=repr)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def autocast() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


SURROUNDED = pytest.mark.parametrize(
    "surrounded",
    [autocast, lambda: default_dtype(torch.bfloat16), lambda: default_dtype(torch.float64)],
    ids=["autocast", "bfloat16", "float64"],
)


def slow_clip() -> Tensor:
    """Eight frames that hardly differ: what bfloat16 products make 0."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 24, 48, generator=generator) + 0.03 * torch.randn(8, 24, 48, generator=generator)


@EVERY
@SURROUNDED
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_method_chooses_what_it_chooses_elsewhere(method, surrounded, dtype):
    video = slow_clip().to(dtype)
    budget = Budget(0.3)
    outside = method.select(video, budget)
    with surrounded():
        inside = method.select(video, budget)
    for one, other in [
        (outside.keep, inside.keep),
        (outside.scores.tokens, inside.scores.tokens),
        (outside.scores.demand, inside.scores.demand),
        (outside.features, inside.features),
    ]:
        assert (one is None) == (other is None)
        assert one is None or (one.dtype == other.dtype and torch.equal(one, other))


@SURROUNDED
def test_the_formulas_are_float32_by_themselves(surrounded):
    video = slow_clip()

    def formulas() -> tuple[Tensor, ...]:
        return *surroundings(video), dissimilarity(video[1:], video[:-1])

    outside = formulas()
    with surrounded():
        inside = formulas()
    assert all(map(torch.equal, outside, inside))


def test_tf32_has_nothing_to_lower(monkeypatch):
    """A process that asks for faster, coarser float32 products gets none of them in the formulas."""

    def refuse(*_: object) -> Tensor:
        raise AssertionError("a matrix product")

    for name in ("__matmul__", "__rmatmul__", "matmul", "mm", "bmm"):
        monkeypatch.setattr(Tensor, name, refuse)
    surroundings(slow_clip())
    dissimilarity(slow_clip(), slow_clip())


def test_the_pipeline_chooses_outside_of_autocast():
    seen = []

    @dataclass(frozen=True)
    class Watching(Uniform):
        def choose(self, features: Tensor, budget: Budget, present: Present) -> Selection:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().choose(features, budget, present)

    model, inputs = tiny.make("llava_onevision"), tiny.FAMILIES["llava_onevision"].inputs([[10, Clip(1), 12]])
    method: Method = Watching()
    with autocast():
        sharpv.trim(model, inputs, method, retention=0.5)
        with sharpv.apply(model, method, retention=0.5, memory=None):
            model(**inputs)
        assert torch.is_autocast_enabled("cpu")
    assert seen == [False, False]


@SURROUNDED
@pytest.mark.parametrize("criterion", [CosineThreshold(), Contribution(relative=0.5), KeepLayers(keep=(0,))], ids=repr)
def test_criteria_measure_in_float32(criterion, surrounded):
    first, hidden, attended = slow_clip().bfloat16()[:6].unflatten(0, (3, 2))
    visual = torch.arange(24).expand(2, -1) < 20
    layer = LayerView(
        index=0,
        hidden=hidden,
        reference=first,
        visual=visual,
        valid=torch.ones_like(visual),
        keys=hidden[:, None],
        values=hidden[:, None],
        attended=attended,
        attend=lambda visible, rows: hidden[:, -rows:],
    )
    outside = criterion.measure(layer)
    with surrounded():
        inside = criterion.measure(layer)
    assert outside.dtype == inside.dtype == torch.float32 and torch.equal(outside, inside)
