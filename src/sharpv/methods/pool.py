"""The control for merging: average pooling over time, the mean of several frames in the place of one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ..lazy import lazy
from .base import METHODS, MergingMethod, Scores, Selection
from .budget import Budget, Present
from .subsample import Subsample

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")


@METHODS.register
@dataclass(frozen=True)
class Pool(MergingMethod):
    """The frames that :class:`Subsample` keeps, each the mean of the frames that lie nearest to it. Cost O(T N D).

    >>> Pool().select(torch.randn(8, 49, 128), Budget(retention=0.25)).keep.sum(dim=1)
    tensor([ 0,  0, 49,  0,  0,  0, 49,  0])
    """

    name: ClassVar[str] = "pool"
    summary: ClassVar[str] = "control: means of neighbouring frames"
    adaptive: ClassVar[bool] = False

    def score(self, features: Tensor) -> Scores:
        return Subsample().score(features)

    def choose(self, features: Tensor, budget: Budget, present: Present) -> Selection:
        selection = Subsample().choose(features, budget, present)
        times = torch.arange(len(features), device=features.device)
        chosen = selection.scores.tokens[:, 0] > 0
        # the nearest chosen frame of each frame, the earlier of two
        apart = (times[:, None] - times).abs().masked_fill(~chosen, len(features))
        groups = torch.zeros_like(apart, dtype=torch.float32)
        groups[times, apart.argmin(dim=1)] = 1
        means = (groups / groups.sum(dim=0).clamp(min=1)).T @ features.float().flatten(1)
        return replace(selection, features=means.view_as(features).to(features.dtype))
