"""FastVID: salient tokens stay, the others of a segment are merged into anchors.

Paper: https://arxiv.org/abs/2503.11187. Written from its formulas. Salience comes from the vision tower's attention
there; features alone are seen here, so it is the paper's fallback, the norm. What its rounding down leaves of the exact
total goes to the most salient of the other tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..checks import number, set_numbers, whole
from ..lazy import lazy
from .base import METHODS, MergingMethod, Scores, Selection
from .budget import Budget, Present, keep_top, rank

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

NEIGHBOURS = 4
"""Nearest tokens (itself included) whose distance makes a token's density."""


@METHODS.register
@dataclass(frozen=True)
class FastVID(MergingMethod):
    """Cuts the video into segments of like frames; merges what is not salient into dense, distinct anchors.

    Cost O(T N^2 D + T A N^2 D) for A anchor frames a segment, at most ``T / every``.

    Args:
        segments: c, at least so many (or one a frame).
        similarity: tau, frames whose means have a lower cosine are cut apart.
        merged: d, the share of a frame's budget that goes to anchors.
        every: p, every so many frames of a segment, counted from its last, hold anchors.
        own: beta, the least weight of an anchor's own feature.
        everywhere: see :class:`~sharpv.methods.base.MergingMethod`.

    >>> selection = FastVID().select(torch.randn(8, 49, 128), Budget(retention=0.25))
    >>> selection.features.shape
    torch.Size([8, 49, 128])
    """

    name: ClassVar[str] = "fastvid"
    summary: ClassVar[str] = "salient tokens, and anchors into which the others are merged"
    adaptive: ClassVar[bool] = False
    cost: ClassVar[str] = "T^2 N^2 D"
    paper: ClassVar[str] = "2503.11187"

    segments: int = 8
    similarity: float = 0.9
    merged: float = 0.4
    every: int = 4
    own: float = 0.6

    def __post_init__(self) -> None:
        for name in ("segments", "every"):
            set_numbers(self, **{name: whole(name, getattr(self, name), least=1)})
        for name in ("merged", "own"):
            set_numbers(self, **{name: number(name, getattr(self, name), least=0, most=1)})
        set_numbers(self, similarity=number("similarity", self.similarity, least=-math.inf, most=math.inf))

    def score(self, features: Tensor) -> Scores:
        return Scores(features.float().norm(dim=-1), None)

    def choose(self, features: Tensor, budget: Budget, present: Present) -> Selection:
        x, scores = features.float(), self.score(features)
        frames, size, _ = x.shape
        there = present.mask
        total = budget.total(present.count)
        assert total is not None
        # 1. segments: the first and the last frame of each frame's own
        start, end = self._segments(x)
        # 2. and 3. of n tokens a frame, n_s salient ones
        each = total // frames
        anchors = math.floor(each * self.merged)
        salience = scores.tokens.masked_fill(~there, -torch.inf)
        salient = keep_top(salience, torch.full_like(start, each - anchors))
        # 4. gamma = density * distance to the next denser token, among the others
        others = there & ~salient
        gamma = _density_peaks(x, others)
        # 5. each of a segment's A anchor frames, every p-th from its last, gets floor(n_c L / A) anchors
        length = end - start + 1
        holders = -(-length // self.every)
        counts = torch.where(
            (end - torch.arange(frames, device=x.device)) % self.every == 0, anchors * length // holders, 0
        )
        anchor = keep_top(gamma.masked_fill(~others, -torch.inf), counts.clamp(max=size)) & others
        # 6. every other token joins its most similar anchor of each anchor frame
        means, members = self._join(x, others, anchor, start, end)
        weight = (1 / (members + 1)).clamp(min=self.own)
        merged = torch.where(members > 0, weight, 1.0)[..., None]
        fused = torch.where(anchor[..., None], merged * x + (1 - merged) * means, x)
        # 7. the exact total
        above = scores.tokens.max() + 1
        worth = torch.where(salient | anchor, salience + above, salience)
        return Selection(budget.best(worth, present), scores, fused.to(features.dtype))

    def _segments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """First and last frame of each frame's segment, ``(T,)`` each."""
        frames = len(x)
        index = torch.arange(frames, device=x.device)
        means = torch.nn.functional.normalize(x.mean(dim=1), dim=-1)
        alike = (means[1:] * means[:-1]).sum(dim=-1)
        cut = alike < self.similarity
        cut |= rank(-alike) < min(self.segments - 1, frames - 1)
        begins = torch.cat([cut.new_ones(1), cut])
        ends = torch.cat([cut, cut.new_ones(1)])
        start = torch.where(begins, index, 0).cummax(dim=0).values
        end = torch.where(ends, index, frames).flip(0).cummin(dim=0).values.flip(0)
        return start, end

    def _join(self, x: Tensor, others: Tensor, anchor: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of the tokens that joined each anchor ``(T, N, D)``, and how many did ``(T, N)``."""
        frames, size, _ = x.shape
        unit = torch.nn.functional.normalize(x, dim=-1)
        sums, members = torch.zeros_like(x).flatten(0, 1), x.new_zeros(frames * size)
        for back in range(0, frames, self.every):
            holder = end - back
            valid = others & (holder >= start)[:, None]
            holder = holder.clamp(min=0)
            alike = (unit @ unit[holder].mT).masked_fill(~anchor[holder][:, None], -torch.inf)
            best, to = alike.max(dim=2)
            valid &= best > -torch.inf
            into = (holder[:, None] * size + to).flatten()
            count = valid.flatten().float()
            sums.index_add_(0, into, x.flatten(0, 1) * count[:, None])
            members.index_add_(0, into, count)
        return (sums / members.clamp(min=1)[:, None]).view_as(x), members.view(frames, size)


def _density_peaks(x: Tensor, among: Tensor) -> Tensor:
    """gamma of each token of a frame among those given, ``(T, N, D), (T, N) -> (T, N)``."""
    size, width = x.shape[1:]
    squares = x.square().sum(dim=-1)
    distance = squares[:, :, None] + squares[:, None] - 2 * x @ x.mT
    distance.diagonal(dim1=1, dim2=2).zero_()
    distance = distance.clamp(min=0).sqrt() / math.sqrt(width)
    both = among[:, :, None] & among[:, None]
    far = distance.masked_fill(~both, torch.inf)
    nearest = far.topk(min(NEIGHBOURS, size), dim=2, largest=False).values
    found = nearest.isfinite()
    mean = nearest.square().masked_fill(~found, 0.0).sum(dim=2) / found.sum(dim=2).clamp(min=1)
    density = (-mean).exp()
    index = torch.arange(size, device=x.device)
    # of two equally dense tokens the one of the lower index is the denser
    denser = (density[:, None] > density[:, :, None]) | (
        (density[:, None] == density[:, :, None]) & (index[None] < index[:, None])
    )
    closest = far.masked_fill(~denser, torch.inf).amin(dim=2)
    largest = distance.masked_fill(~both, 0.0).amax(dim=2)
    return density * torch.where(closest.isfinite(), closest, largest)
