"""The control that every score must beat: random tokens, from every frame alike or at another method's counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..budget import Budget
from .base import Method, Scores


@dataclass(frozen=True)
class Random(Method):
    """Random tokens from a seed.

    Args:
        seed: of the generator, drawn on the CPU so that devices agree; the same for each video.
        counts_of: another method whose per-frame demand is copied, so that only the choice within a frame differs.
            The paper's ablation "random tokens at SharpV's own counts" is ``Random(counts_of=SharpV())``.

    >>> Random(seed=3).select(torch.randn(8, 49, 128), Budget(retention=0.25)).keep.sum()
    tensor(98)
    """

    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "control: random tokens, uniform or at another method's counts"
    adaptive: ClassVar[bool] = False

    seed: int = 0
    counts_of: Method | None = None

    def __post_init__(self) -> None:
        if self.counts_of is not None and not isinstance(self.counts_of, Method):
            raise TypeError(f"counts_of must be a method such as SharpV(), got {self.counts_of!r}")

    def score(self, features: Tensor) -> Scores:
        frames, size, _ = features.shape
        draw = torch.rand(frames, size, generator=torch.Generator().manual_seed(self.seed)).to(features.device)
        if self.counts_of is not None:
            return Scores(draw, self.counts_of.score(features).demand)
        return Scores(draw, torch.ones(frames, device=features.device))

    def require_budget(self, budget: Budget) -> None:
        if self.counts_of is not None:
            self.counts_of.require_budget(budget)
        else:
            super().require_budget(budget)
