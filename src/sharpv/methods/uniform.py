"""The control that ignores content: the same number of evenly spaced tokens from every frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..budget import Budget
from .base import Method, Scores, Selection


@dataclass(frozen=True)
class Uniform(Method):
    """Evenly spaced tokens, every frame alike; needs a ``retention``.

    >>> Uniform().select(torch.randn(8, 49, 128), Budget(retention=0.25)).keep.sum()
    tensor(98)
    """

    name: ClassVar[str] = "uniform"
    summary: ClassVar[str] = "control: evenly spaced tokens, every frame alike"
    adaptive: ClassVar[bool] = False

    def score(self, features: Tensor) -> Scores:
        frames, tokens, _ = features.shape
        return Scores(torch.zeros(frames, tokens, device=features.device), torch.ones(frames, device=features.device))

    def choose(self, features: Tensor, budget: Budget) -> Selection:
        scores = self.score(features)
        size = features.shape[1]
        counts = budget.counts(scores.demand, size)[:, None]
        # of n counters that run evenly through the frame, token i is kept where one passes a whole number
        places = torch.arange(size, device=features.device)
        return Selection((places + 1) * counts // size > places * counts // size, scores)
