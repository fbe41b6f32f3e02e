"""From the share that each frame asks for to a whole number of tokens, and from scores and counts to a keep mask.

Ratios live at the door only; inside, a budget is integers. All functions work on tensors of the features' device and
never synchronise with the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..checks import number, set_numbers, whole
from ..lazy import lazy

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

FAINT = 1e-9
"""Share of the largest demand that a frame which asks for nothing is credited with. It decides nothing as long as
another frame can still take tokens; after that, the still frames share what is left evenly."""


@dataclass(frozen=True)
class Present:
    """Which tokens of a video's grid the prompt holds: all, unless a model's own processor leaves some out.

    Attributes:
        mask: ``(T, N)`` bool.
        count: how many are True, known on the host.
    """

    mask: Tensor
    count: int

    @classmethod
    def everywhere(cls, frames: int, size: int, device: torch.device | str | None = None) -> Present:
        """All tokens of a video are there."""
        return cls(torch.ones(frames, size, dtype=torch.bool, device=device), frames * size)

    @property
    def whole(self) -> bool:
        """Whether no token is missing."""
        return self.count == self.mask.numel()


@dataclass(frozen=True)
class Budget:
    """How many tokens a video may keep; combines with every method.

    Args:
        retention: the KEPT share of a video's tokens, in (0, 1]; the total is ``round(retention * tokens)``, at least
            one, met exactly and shared out in proportion to what the frames ask for. None: the content decides.
        max_tokens: ceiling on a video's kept tokens. When it binds, the frames' counts shrink in proportion.
        min_tokens_per_frame: floor on each frame's kept tokens (clipped to the frame's size).

    Raises:
        TypeError: not a number.
        ValueError: a value out of range.

    >>> Budget(retention=0.25).total(8 * 49)
    98
    """

    retention: float | None = None
    max_tokens: int | None = None
    min_tokens_per_frame: int = 0

    def __post_init__(self) -> None:
        if self.retention is not None:
            set_numbers(self, retention=number("retention is the kept share and", self.retention, above=0, most=1))
        if self.max_tokens is not None:
            set_numbers(self, max_tokens=whole("max_tokens", self.max_tokens, least=1))
        set_numbers(self, min_tokens_per_frame=whole("min_tokens_per_frame", self.min_tokens_per_frame, least=0))

    @classmethod
    def exactly(cls, tokens: int, min_tokens_per_frame: int = 0) -> Budget:
        """So many tokens, whatever the content asks for."""
        return cls(1.0, tokens, min_tokens_per_frame)

    def total(self, tokens: int) -> int | None:
        """The exact number that a fixed ``retention`` keeps of a video of so many tokens, or None if adaptive."""
        if self.retention is None:
            return None
        total = max(1, round(self.retention * tokens))
        return total if self.max_tokens is None else min(total, self.max_tokens)

    def counts(self, demand: Tensor, present: Present) -> Tensor:
        """Kept tokens per frame for frames that ask for the shares ``demand``.

        Args:
            demand: ``(T,)`` float in [0, 1], the share of its tokens that each frame asks for.
            present: the tokens that there are.

        Returns:
            ``(T,)`` int64 with ``floor <= counts <= N`` and a sum of at least 1; with a fixed ``retention`` the sum is
            :meth:`total`, with ``max_tokens`` it is at most that. No frame is given more tokens than it has.

        Raises:
            ValueError: the floor asks for more tokens than the total or the ceiling allows.
        """
        limit = self._limit(present)
        cap = present.mask.sum(dim=1)
        floor = cap.clamp(max=self.min_tokens_per_frame)
        if self.retention is not None:
            assert limit is not None
            return share_out(demand, limit, floor, cap)
        # r_t * N to the nearest integer; halves go up, so that the rule does not depend on even and odd counts
        asked = (demand.double() * present.mask.shape[1] + 0.5).floor().long().clamp(floor, cap)
        counts = _at_least_one(asked, demand, cap)
        if self.max_tokens is None or self.max_tokens >= present.count:
            return counts
        return torch.where(counts.sum() > self.max_tokens, share_out(demand, self.max_tokens, floor, cap), counts)

    def best(self, scores: Tensor, present: Present) -> Tensor:
        """The best tokens of the whole video, whatever their frames: needs a ``retention``.

        Args:
            scores: ``(T, N)``, compared across frames; -inf where no token is.
            present: the tokens that there are.

        Returns:
            ``(T, N)`` bool with :meth:`total` True, the floor of each frame among them.

        Raises:
            ValueError: as :meth:`counts`.
        """
        limit = self._limit(present)
        assert self.retention is not None and limit is not None
        there = torch.isfinite(scores)
        floor = there.sum(dim=1).clamp(max=self.min_tokens_per_frame)
        first = scores.masked_fill(keep_top(scores, floor), torch.inf)
        return (rank(first.flatten()) < limit).view_as(scores) & there

    def _limit(self, present: Present) -> int | None:
        """The total that may be kept, or None; a floor that asks for more is refused."""
        frames, tokens_per_frame = present.mask.shape
        limit = self.total(present.count)
        limit = self.max_tokens if limit is None else limit
        least = min(self.min_tokens_per_frame, tokens_per_frame) * frames
        if limit is not None and least > limit:
            raise ValueError(
                f"min_tokens_per_frame={self.min_tokens_per_frame} asks for {least} tokens over {frames} "
                f"frames, but only {limit} may be kept: lower it, or raise retention or max_tokens"
            )
        return limit


def share_out(demand: Tensor, total: int, floor: Tensor, cap: Tensor) -> Tensor:
    """Water-filling: ``total`` tokens over frames in proportion to ``demand``, each count between floor and cap.

    Finds the level x with sum_t clamp(x * demand_t, floor_t, cap_t) = total, then rounds by largest remainder, ties to
    the lower index. The sum is exact whenever ``floor.sum() <= total <= cap.sum()``. All ``(T,)``.

    >>> share_out(torch.tensor([0.1, 0.3, 0.0, 0.6]), 20, floor=torch.zeros(4), cap=torch.full((4,), 9))
    tensor([ 3,  8,  0,  9])
    """
    demand = demand.double()
    largest = demand.max()
    demand = torch.where(largest > 0, demand.clamp(min=FAINT * largest), torch.ones_like(demand))
    # the sum is piecewise linear in x; its corners lie where a frame leaves the floor or reaches the cap
    corners = torch.cat([floor / demand, cap / demand]).sort().values
    sums = (corners[:, None] * demand).clamp(floor, cap).sum(dim=1)
    right = (sums < total).sum().clamp(1, len(corners) - 1)
    low, high, low_sum, high_sum = corners.take(right - 1), corners.take(right), sums.take(right - 1), sums.take(right)
    level = low + (high - low) * ((total - low_sum) / (high_sum - low_sum).clamp(min=1e-300)).clamp(0, 1)
    exact = (level * demand).clamp(floor, cap)
    counts = exact.floor().long()
    missing = total - counts.sum()
    # a frame at its cap cannot take a remainder
    remainder = (exact - counts).masked_fill(counts >= cap, -1.0)
    return counts + (rank(remainder) < missing).long()


def rank(scores: Tensor) -> Tensor:
    """Rank of each entry along the last dimension, 0 for the largest; ties go to the lower index."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def keep_top(scores: Tensor, counts: Tensor) -> Tensor:
    """Keep the ``counts[t]`` highest scores of frame t, all frames at once. ``(T, N), (T,) -> (T, N)`` bool."""
    return rank(scores) < counts[:, None]


def _at_least_one(counts: Tensor, demand: Tensor, cap: Tensor) -> Tensor:
    """A video keeps at least one token: the frame that asks for most gets it when rounding left nothing."""
    able = demand.masked_fill(cap == 0, -1.0)
    neediest = torch.arange(len(counts), device=counts.device) == able.argmax()
    return torch.where(counts.sum() == 0, neediest.long(), counts)
