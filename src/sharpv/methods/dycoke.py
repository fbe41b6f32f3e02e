"""DyCoke's first step, temporal token merging (TTM): of four frames the first one, and what changed in the others.

Paper: https://arxiv.org/abs/2411.15024 (CVPR 2025). Written from its formulas; its second step, which reads attention
while decoding, is not here. A last window may be shorter. With a ``retention`` all demands are scaled to its total.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .base import Method, Scores

WINDOW = 4
REFERENCES = (0, 0, 0, 2)
"""With which frame of its window each of its frames is compared; the first is kept whole."""


@dataclass(frozen=True)
class DyCoke(Method):
    """Keeps the first frame of each window and the share 1 - K of the others, least similar tokens. Cost O(T N D).

    Args:
        pruned: K, the share that goes from the three other frames of a window; 0.7 keeps 47.5 % of all tokens.

    >>> DyCoke().select(torch.randn(8, 48, 128)).keep.sum(dim=1)
    tensor([48, 14, 14, 14, 48, 14, 14, 14])
    """

    name: ClassVar[str] = "dycoke"
    summary: ClassVar[str] = "of four frames the first, and what changed in the others (step 1)"
    adaptive: ClassVar[bool] = True
    paper: ClassVar[str] = "2411.15024"

    pruned: float = 0.7

    def __post_init__(self) -> None:
        if not 0.0 <= self.pruned <= 1.0:
            raise ValueError(f"pruned must lie in [0, 1], got {self.pruned}")

    def score(self, features: Tensor) -> Scores:
        frames = torch.arange(len(features), device=features.device)
        place = frames % WINDOW
        compared = frames - place + torch.tensor(REFERENCES, device=features.device)[place]
        x = normalize(features.float(), dim=-1)
        change = 1 - (x * x[compared]).sum(dim=-1)
        demand = torch.where(place == 0, 1.0, 1.0 - self.pruned)
        return Scores(change, demand)
