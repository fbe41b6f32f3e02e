"""DivPrune: the most diverse subset, by farthest-point sampling on cosine distance.

Paper: https://arxiv.org/abs/2503.02175 (CVPR 2025), for images. Written from its formulas. A video is pruned frame by
frame, or as one set, which costs a matrix-vector product per kept token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..lazy import lazy
from .base import METHODS, Method, Scores, Selection
from .budget import Budget, Present

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

BLOCK = 512
"""Tokens whose distances to all others are taken together when the seed is looked for."""
ROUNDING = 1e-6
"""Distances that differ by less are the same."""


@METHODS.register
@dataclass(frozen=True)
class DivPrune(Method):
    """Greedy max-min: each next token is the one farthest from all chosen ones, in 1 - cos.

    Args:
        scope: "frame": every frame alike, cost O(T N^2 D). "video": all tokens as one set, cost O(kept T N D).

    >>> DivPrune().select(torch.randn(8, 49, 128), Budget(retention=0.25)).keep.sum(dim=1)
    tensor([13, 13, 12, 12, 12, 12, 12, 12])
    """

    name: ClassVar[str] = "divprune"
    summary: ClassVar[str] = "the most diverse tokens, by farthest-point sampling"
    adaptive: ClassVar[bool] = False
    cost: ClassVar[str] = "T N^2 D"
    paper: ClassVar[str] = "2503.02175"

    scope: Literal["frame", "video"] = "frame"

    def __post_init__(self) -> None:
        if self.scope not in ("frame", "video"):
            raise ValueError(f"scope must be 'frame' or 'video', got {self.scope!r}")

    def score(self, features: Tensor) -> Scores:
        """Worth is the place in the greedy order, the first chosen highest."""
        frames, size, _ = features.shape
        if self.scope == "frame":
            order = farthest_first(features, size)
            return Scores(-order.float(), features.new_ones(frames, dtype=torch.float32))
        order = farthest_first(features.flatten(0, 1)[None], frames * size)
        return Scores(-order.view(frames, size).float(), None)

    def choose(self, features: Tensor, budget: Budget, present: Present) -> Selection:
        if self.scope == "frame" or not present.whole or budget.min_tokens_per_frame:
            return super().choose(features, budget, present)
        # the order beyond the budget is not needed
        frames, size, _ = features.shape
        total = budget.total(frames * size)
        assert total is not None
        order = farthest_first(features.flatten(0, 1)[None], total).view(frames, size)
        return Selection(order < total, Scores(-order.float(), None))


def farthest_first(features: Tensor, count: int) -> Tensor:
    """Place of each token in the greedy order, ``(B, N, D) -> (B, N)`` int64; N beyond the first ``count``."""
    x = torch.nn.functional.normalize(features.float(), dim=-1)
    batch, size, _ = x.shape
    rows = torch.arange(batch, device=x.device)
    order = torch.full((batch, size), size, device=x.device)
    # the seed is the token whose nearest other token is farthest away
    parts = [_nearest(x, start) for start in range(0, size, BLOCK)]
    nearest, neighbour = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    chosen = nearest.argmax(dim=1)
    # two tokens that are nearest to each other tie, whatever rounding says: the lower index
    other = neighbour[rows, chosen]
    chosen = torch.where(nearest[rows, chosen] - nearest[rows, other] < ROUNDING, chosen.minimum(other), chosen)
    # a frame's cosines fit in memory, a long video's do not
    cosines = x @ x.mT if size <= BLOCK else None
    distance = x.new_full((batch, size), torch.inf)
    for place in range(min(count, size)):
        order[rows, chosen] = place
        # mu_j = min over the chosen k of D_kj
        to_chosen = (x @ x[rows, chosen, :, None]).squeeze(-1) if cosines is None else cosines[rows, chosen]
        distance = distance.minimum(1 - to_chosen)
        distance[rows, chosen] = -torch.inf
        chosen = distance.argmax(dim=1)
    return order


def _nearest(x: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Distance of BLOCK tokens to their nearest other token and its index, ``(B, BLOCK)`` each."""
    distance = 1 - x[:, start : start + BLOCK] @ x.mT
    places = torch.arange(distance.shape[1], device=x.device)
    distance[:, places, start + places] = torch.inf
    nearest = distance.min(dim=2)
    return nearest.values.nan_to_num(posinf=0.0), nearest.indices
