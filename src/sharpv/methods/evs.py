"""Efficient Video Sampling: keep what changed since the frame before, across the whole video.

Paper: EVS, https://arxiv.org/abs/2510.14624; also in vLLM. Written from its formulas. Here a budget is met exactly:
where it is smaller than a frame, only a part of the anchor frame stays, where the original keeps all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..lazy import lazy
from .base import METHODS, Method, Scores
from .importance import temporal_importance

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

ANCHOR = 3.0
"""Score of a token that always goes first: 1 - cos is at most 2."""


@METHODS.register
@dataclass(frozen=True)
class EVS(Method):
    """s_{t,i} = 1 - cos(F_t[i], F_{t-1}[i]) for t >= 2; the first frame is an anchor. Cost O(T N D).

    Args:
        anchor_frame: keep the whole first frame first. False, a variant of ours: its tokens count as much as their
            successors, since of 32 frames at 10 % kept the anchor takes 31 % of the budget.

    >>> EVS().select(torch.randn(8, 49, 128), Budget(retention=0.25)).keep.sum()
    tensor(98)
    """

    name: ClassVar[str] = "evs"
    summary: ClassVar[str] = "tokens that changed since the frame before, across the video"
    adaptive: ClassVar[bool] = False
    paper: ClassVar[str] = "2510.14624"

    anchor_frame: bool = True

    def score(self, features: Tensor) -> Scores:
        # Dissim^2 / 2 = 1 - cos
        change = temporal_importance(features).square() / 2
        anchor = torch.full_like(features[:1, :, 0], ANCHOR, dtype=torch.float32)
        first = anchor if self.anchor_frame or len(change) == 0 else change[:1]
        return Scores(torch.cat([first, change]), None)
