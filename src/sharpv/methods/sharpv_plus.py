"""SharpV's counts and importance, with tokens of a frame that must also differ from each other.

Not in the paper: this project's own. SharpV's T decides how much of each frame is kept, and its I = T + w S how much a
token is worth (arXiv 2511.08003); the subset is the one that a determinantal point process finds likeliest,

    L = diag(q) G diag(q),  G_ij = cos(x_i, x_j),  q_i = (I_i / max I) ** power

greedily, as in CDPruner (arXiv 2506.10967), with importance in the place of relevance to a question. What ranks high by
I alone is often one thing many times over. What it is worth on the embedded model: docs/results/pocket_plus.md. It has
not been measured on a large one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..checks import number, set_numbers
from .base import METHODS, Method, Scores
from .cdpruner import largest_determinant, similarity_kernel
from .importance import frame_retention, importance, surroundings

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-3
"""Worth of a token that is like all around it: none is out of the question."""


@METHODS.register
@dataclass(frozen=True)
class SharpVPlus(Method):
    """SharpV decides how many tokens a frame keeps; diversity decides which.

    Args:
        weight: w, as SharpV's.
        power: how much importance counts beside diversity; 0 is diversity alone.

    >>> sharpv.apply(model, "sharpv+", retention=0.25)
    """

    name: ClassVar[str] = "sharpv+"
    summary: ClassVar[str] = "sharpv decides how many tokens a frame keeps, diversity decides which"
    adaptive: ClassVar[bool] = True
    cost: ClassVar[str] = "T N^2 (N + D)"

    weight: float = 1.0
    power: float = 0.25

    def __post_init__(self) -> None:
        for name in ("weight", "power"):
            set_numbers(self, **{name: number(name, getattr(self, name), least=0)})

    def score(self, features: Tensor) -> Scores:
        spatial, temporal = surroundings(features)
        tokens = importance(spatial, temporal, self.weight)
        worth = (tokens / tokens.amax(dim=1, keepdim=True).clamp(min=1e-6)).clamp(min=SMALLEST) ** self.power
        order = largest_determinant(similarity_kernel(features, worth))
        return Scores(-order.float(), frame_retention(spatial, temporal))
