"""VidCom2: tokens that are unlike the video and unlike their frame, more from frames that stand out.

Paper: Video Compression Commander, https://arxiv.org/abs/2505.14454 (EMNLP 2025). Written from its formulas. The
original rounds each frame's count and may miss the total; here the total is met exactly, by dropping the least or
adding the most worthy tokens of the video, as its exact mode does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..checks import number, set_numbers
from ..lazy import lazy
from .base import METHODS, Method, Scores, Selection
from .budget import Budget, Present, keep_top

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

KERNEL_WIDTHS = (-3, -2, -1, 0, 1)
"""Exponents k of the Gaussian kernels' variances 2^k."""


@METHODS.register
@dataclass(frozen=True)
class VidCom2(Method):
    """Keeps the tokens with the smallest V + F, similarity to the video's and to the frame's centre. Cost O(T N D).

    Args:
        temperature: of the softmax over frames. Paper: 0.01.
        channels: share of the channels that is read, those of lowest variance. Paper: 0.5.

    >>> VidCom2().select(torch.randn(8, 49, 128), Budget(retention=0.25)).keep.sum()
    tensor(98)
    """

    name: ClassVar[str] = "vidcom2"
    summary: ClassVar[str] = "tokens unlike video and frame, more from frames that stand out"
    adaptive: ClassVar[bool] = False
    paper: ClassVar[str] = "2505.14454"

    temperature: float = 0.01
    channels: float = 0.5

    def __post_init__(self) -> None:
        set_numbers(self, temperature=number("temperature", self.temperature, above=0, most=math.inf))
        set_numbers(self, channels=number("channels", self.channels, above=0, most=1))

    def score(self, features: Tensor) -> Scores:
        # 1. the channels of lowest variance over all tokens, normalised
        flat = features.float()
        count = max(1, int(self.channels * flat.shape[-1]))
        steady = flat.flatten(0, 1).var(dim=0, unbiased=False).argsort(stable=True)[:count]
        y = torch.nn.functional.normalize(flat[..., steady], dim=-1)
        # 2. similarity to the centre of the video (V) and of the frame (F)
        video, frame = _kernel(y, y.mean(dim=(0, 1))), _kernel(y, y.mean(dim=1, keepdim=True))
        # 3. frames that are less like the video get more: p = softmax(u / temperature)
        likeness = -video.mean(dim=1)
        share = ((likeness - likeness.max()) / self.temperature).softmax(dim=0)
        return Scores(-(video + frame), share)

    def choose(self, features: Tensor, budget: Budget, present: Present) -> Selection:
        scores = self.score(features)
        frames, size = scores.tokens.shape
        tokens = scores.of(present)
        assert budget.retention is not None and scores.demand is not None
        # 4. sigma_t = min(1, R (1 + p_t - 1 / T)), n_t = sigma_t f rounded, at least one
        asked = (budget.retention * (1 + scores.demand - 1 / frames)).clamp(max=1)
        counts = (asked * size).round().long().clamp(1, size)
        # 5. the exact total: those first, the others after them, each by their worth
        chosen = keep_top(tokens, counts)
        span = scores.tokens.max() - scores.tokens.min() + 1
        return Selection(budget.best(torch.where(chosen, tokens + span, tokens), present), scores)


def _kernel(y: Tensor, centre: Tensor) -> Tensor:
    """Sum over k of exp(-|y - c|^2 / (2 2^k)), ``(T, N, C) -> (T, N)``."""
    distance = (y - centre).square().sum(dim=-1)
    return torch.stack([(-distance / (2 * 2.0**k)).exp() for k in KERNEL_WIDTHS]).sum(dim=0)
