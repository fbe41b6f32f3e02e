"""DyCoke's first step, temporal token merging (TTM): of four frames the first one, and what changed in the others.

Paper: https://arxiv.org/abs/2411.15024 (CVPR 2025). Written from its formulas; its second step, which reads attention
while decoding, is not here. A last window may be shorter. With a ``retention`` all demands are scaled to its total.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..checks import number, set_numbers
from ..lazy import lazy
from .base import METHODS, Method, Scores

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

WINDOW = 4
REFERENCES = (0, 0, 0, 2)
"""With which frame of its window each of its frames is compared; the first is kept whole."""


@METHODS.register
@dataclass(frozen=True)
class DyCoke(Method):
    """Keeps the first frame of each window and the share 1 - K of the others, least similar tokens. Cost O(T N D).

    Args:
        pruned: K, the share that goes from the three other frames of a window, of which floor((1 - K) N) tokens stay;
            0.7 keeps 47.5 % of all tokens.

    >>> DyCoke().select(torch.randn(8, 48, 128)).keep.sum(dim=1)
    tensor([48, 14, 14, 14, 48, 14, 14, 14])
    """

    name: ClassVar[str] = "dycoke"
    summary: ClassVar[str] = "of four frames the first, and what changed in the others (step 1)"
    adaptive: ClassVar[bool] = True
    paper: ClassVar[str] = "2411.15024"

    pruned: float = 0.7

    def __post_init__(self) -> None:
        set_numbers(self, pruned=number("pruned", self.pruned, least=0, most=1))

    def score(self, features: Tensor) -> Scores:
        frames = torch.arange(len(features), device=features.device)
        place = frames % WINDOW
        compared = frames - place + torch.tensor(REFERENCES, device=features.device)[place]
        # least similar is most dissimilar; 1 - cos itself is lost in rounding where frames are alike
        x = torch.nn.functional.normalize(features.float(), dim=-1)
        change = torch.linalg.vector_norm(x - x[compared], dim=-1)
        # floor((1 - K) N) of the later frames' tokens, the floor of the number that is meant: 0.8 of 50 leaves 10
        size = features.shape[1]
        later = math.floor((1 - self.pruned) * size + 1e-9) / size
        demand = torch.full_like(change[:, 0], later).masked_fill(place == 0, 1.0)
        return Scores(change, demand)
