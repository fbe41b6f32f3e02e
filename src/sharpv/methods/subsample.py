"""The control that every pruner must beat: fewer frames, evenly spread, each of them whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..lazy import lazy
from .base import METHODS, Method, Scores, Selection
from .budget import Budget, Present

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")


@METHODS.register
@dataclass(frozen=True)
class Subsample(Method):
    """Whole frames, evenly spread, as many as the budget takes; of the last one a part. Needs a ``retention``.

    >>> Subsample().select(torch.randn(8, 49, 128), Budget(retention=0.25)).keep.sum(dim=1)
    tensor([ 0,  0, 49,  0,  0,  0, 49,  0])
    """

    name: ClassVar[str] = "subsample"
    summary: ClassVar[str] = "control: whole frames, evenly spread"
    adaptive: ClassVar[bool] = False
    cost: ClassVar[str] = "T N"

    def score(self, features: Tensor) -> Scores:
        return Scores(features.new_zeros(features.shape[:2], dtype=torch.float32), None)

    def choose(self, features: Tensor, budget: Budget, present: Present) -> Selection:
        frames, size, _ = features.shape
        total = budget.total(present.count)
        assert total is not None
        wanted = min(frames, -(-total // size))
        # frame (i + 0.5) T / n for i = 0 .. n - 1
        times = torch.arange(wanted, device=features.device)
        chosen = features.new_zeros(frames, 1, dtype=torch.float32)
        chosen[(2 * times + 1) * frames // (2 * wanted)] = 1
        scores = Scores(chosen.expand(frames, size), None)
        return Selection(budget.best(scores.of(present), present), scores)
