"""The control that every score must beat: random tokens, from every frame alike or at another method's counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ..checks import set_numbers, whole
from ..lazy import lazy
from .base import METHODS, Method, Scores, Selection
from .budget import Budget, Present, keep_top

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")


@METHODS.register
@dataclass(frozen=True)
class Random(Method):
    """Random tokens from a seed.

    Args:
        seed: of the generator, drawn on the CPU so that devices agree; the same for each video.
        counts_of: another method whose per-frame counts are copied, so that only the choice within a frame differs.
            The paper's ablation "random tokens at SharpV's own counts" is ``Random(counts_of=SharpV())``.

    >>> Random(seed=3).select(torch.randn(8, 49, 128), Budget(retention=0.25)).keep.sum()
    tensor(98)
    """

    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "control: random tokens, uniform or at another method's counts"
    adaptive: ClassVar[bool] = False
    cost: ClassVar[str] = "T N"

    seed: int = 0
    counts_of: Method | None = None

    def __post_init__(self) -> None:
        set_numbers(self, seed=whole("seed", self.seed))
        if self.counts_of is not None and not isinstance(self.counts_of, Method):
            raise TypeError(f"counts_of must be a method such as SharpV(), got {self.counts_of!r}")

    def score(self, features: Tensor) -> Scores:
        frames, size, _ = features.shape
        generator = torch.Generator().manual_seed(self.seed)
        draw = torch.rand(frames, size, generator=generator, dtype=torch.float32, device="cpu")
        return Scores(draw.to(features.device), features.new_ones(frames, dtype=torch.float32))

    def choose(self, features: Tensor, budget: Budget, present: Present) -> Selection:
        if self.counts_of is None:
            return super().choose(features, budget, present)
        other, scores = self.counts_of.choose(features, budget, present), self.score(features)
        tokens = scores.of(present)
        return Selection(keep_top(tokens, other.keep.sum(dim=1)), replace(other.scores, tokens=scores.tokens))

    def require_budget(self, budget: Budget) -> None:
        if self.counts_of is not None:
            self.counts_of.require_budget(budget)
        else:
            super().require_budget(budget)
