"""The control that ignores content: the same number of evenly spaced tokens from every frame."""

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
class Uniform(Method):
    """Evenly spaced tokens, every frame alike; needs a ``retention``.

    >>> Uniform().select(torch.randn(8, 49, 128), Budget(retention=0.25)).keep.sum()
    tensor(98)
    """

    name: ClassVar[str] = "uniform"
    summary: ClassVar[str] = "control: evenly spaced tokens, every frame alike"
    adaptive: ClassVar[bool] = False
    cost: ClassVar[str] = "T N"

    def score(self, features: Tensor) -> Scores:
        return Scores(features.new_zeros(features.shape[:2], dtype=torch.float32), self._alike(features))

    def choose(self, features: Tensor, budget: Budget, present: Present) -> Selection:
        scores = self.score(features)
        there = present.mask
        counts = budget.counts(self._alike(features), present)[:, None]
        # of n counters that run evenly through the frame, token i is kept where one passes a whole number
        last = there.cumsum(dim=1)
        size = last[:, -1:].clamp(min=1)
        return Selection(there & (last * counts // size > (last - 1) * counts // size), scores)

    @staticmethod
    def _alike(features: Tensor) -> Tensor:
        return features.new_ones(len(features), dtype=torch.float32)
