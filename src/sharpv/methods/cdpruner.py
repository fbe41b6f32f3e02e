"""CDPruner: tokens that answer the question and differ from each other, by a conditional determinantal point process.

Paper: https://arxiv.org/abs/2506.10967 (NeurIPS 2025), for images, with a CLIP text tower. Written from its formulas:

    L = diag(r) G diag(r),  G_ij = cos(x_i, x_j),  r = relevance to the question, in [0, 1]

and greedily the subset of largest determinant. The models here have no CLIP text tower: relevance is taken from the
cosine between a visual token and the mean embedding of the question's tokens, as the language model reads both. Each
frame is pruned alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from ..checks import number, set_numbers
from ..lazy import lazy
from .base import METHODS, Method, Scores

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

SMALLEST = 1e-6
"""Relevance of the least relevant token, and the least that a token is still worth."""


@METHODS.register
@dataclass(frozen=True)
class CDPruner(Method):
    """Greedy maximum of the determinant, in each frame.

    Args:
        sign: 1.0: near the question is relevant; -1.0: far from it, as in the authors' code on CLIP's space, where
            features are known to point away from the words that they match.
        question: ``(D,)`` what is asked, in the space of the features. :func:`sharpv.apply` fills it in. None: all
            tokens are as relevant, diversity alone decides.

    >>> CDPruner(question=torch.randn(128)).select(torch.randn(8, 49, 128), Budget(retention=0.25)).keep.sum().item()
    98
    """

    name: ClassVar[str] = "cdpruner"
    summary: ClassVar[str] = "uses the question: tokens near it and unlike each other"
    adaptive: ClassVar[bool] = False
    cost: ClassVar[str] = "T N^2 (N + D)"
    paper: ClassVar[str] = "2506.10967"
    needs_question: ClassVar[bool] = True

    sign: float = 1.0
    question: Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        set_numbers(self, sign=number("sign", self.sign))
        if self.sign not in (1.0, -1.0):
            raise ValueError(f"sign must be 1.0 or -1.0, got {self.sign}")

    def for_question(self, question: Tensor) -> CDPruner:
        return replace(self, question=question)

    def score(self, features: Tensor) -> Scores:
        """Worth is the place in the greedy order, the first chosen highest."""
        x = torch.nn.functional.normalize(features.float(), dim=-1)
        relevance = x.new_ones(x.shape[:2])
        if self.question is not None:
            if self.question.shape != features.shape[2:]:
                raise ValueError(
                    f"the question must be ({features.shape[2]},), as the features, got {tuple(self.question.shape)}"
                )
            cosine = self.sign * (x @ torch.nn.functional.normalize(self.question.float(), dim=0))
            low, high = cosine.aminmax(dim=1, keepdim=True)
            relevance = (cosine - low) / (high - low).clamp(min=SMALLEST) + SMALLEST
        order = largest_determinant(similarity_kernel(features, relevance))
        return Scores(-order.float(), x.new_ones(len(x)))


def similarity_kernel(features: Tensor, worth: Tensor) -> Tensor:
    """L = diag(worth) G diag(worth) of each frame, ``(T, N, D), (T, N) -> (T, N, N)``."""
    x = torch.nn.functional.normalize(features.float(), dim=-1)
    kernel = worth[:, :, None] * (x @ x.mT) * worth[:, None, :]
    # a token's cosine with itself is 1, whatever rounding says: equals tie, and the lower index goes first
    kernel.diagonal(dim1=1, dim2=2).copy_(worth.square() * x.any(dim=2))
    return kernel


def largest_determinant(kernel: Tensor) -> Tensor:
    """Place of each item in the greedy order, ``(B, N, N) -> (B, N)``, by incremental Cholesky factors.

    With j the last chosen: e_n = (L_jn - sum_s c_sj c_sn) / d_j, then d_n^2 -= e_n^2 (Chen et al.,
    https://arxiv.org/abs/1709.05135).
    """
    batch, size, _ = kernel.shape
    rows = torch.arange(batch, device=kernel.device)
    order = torch.full((batch, size), size, device=kernel.device)
    gain = kernel.diagonal(dim1=1, dim2=2).clone()
    factors = kernel.new_zeros(batch, size, size)
    for place in range(size):
        free = order == size
        chosen = gain.masked_fill(~free, -torch.inf).argmax(dim=1)
        order[rows, chosen] = place
        known = factors[:, :place]
        part = kernel[rows, chosen] - (known[rows, :, chosen, None] * known).sum(dim=1)
        factors[:, place] = part / gain[rows, chosen].clamp(min=SMALLEST).sqrt()[:, None]
        gain = gain - factors[:, place].square()
    return order
