"""References that act inside the language model: all visual tokens enter it, some leave it at a layer.

FastV: https://arxiv.org/abs/2403.06764 (ECCV 2024). VTW: https://arxiv.org/abs/2405.05803 (AAAI 2025). Both for images.
Written from their descriptions. What a layer and those after it have not seen is not in their KV caches either, so
these methods take the place of the second stage. :mod:`sharpv.withdrawal` does the surgery.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..budget import Budget, Present
from ..checks import set_numbers, whole
from .base import Method, Scores, Selection


@dataclass(frozen=True)
class InnerMethod(Method):
    """Base of the methods that drop visual tokens before decoder layer ``layer`` (counted from 0)."""

    reads_attention: ClassVar[bool] = False
    """Whether :meth:`stays` needs attention weights."""

    layer: int = 3

    def __post_init__(self) -> None:
        set_numbers(self, layer=whole("layer", self.layer, least=1))

    def score(self, features: Tensor) -> Scores:
        """All tokens enter the language model."""
        frames, size, _ = features.shape
        return Scores(features.new_zeros(frames, size, dtype=torch.float32), features.new_ones(frames))

    def choose(self, features: Tensor, budget: Budget, present: Present | None = None) -> Selection:
        scores = self.score(features)
        everything = torch.ones_like(scores.tokens, dtype=torch.bool) if present is None else present.mask
        return Selection(everything, scores)

    @abstractmethod
    def stays(self, visual: Tensor, budget: Budget, weights: Tensor | None) -> Tensor:
        """Which visual tokens go on from ``layer``, ``(B, N)`` bool.

        Args:
            visual: ``(B, N)`` bool, the visual tokens of the prompt.
            weights: ``(B, N)`` what the last prompt token pays to each in the layer before, mean over heads.
        """


@dataclass(frozen=True)
class FastV(InnerMethod):
    """Keeps the visual tokens that the last prompt token attends to most in the layer before ``layer``.

    Only that one row of attention is computed apart; fused kernels stay in use.

    >>> sharpv.apply(model, FastV(layer=3), retention=0.5)
    """

    name: ClassVar[str] = "fastv"
    summary: ClassVar[str] = "inside the model: what the last prompt token attends to at a layer"
    adaptive: ClassVar[bool] = False
    paper: ClassVar[str] = "2403.06764"
    reads_attention: ClassVar[bool] = True

    def require_budget(self, budget: Budget) -> None:
        super().require_budget(budget)
        if budget.min_tokens_per_frame:
            raise ValueError("fastv ranks all tokens of a prompt together: min_tokens_per_frame cannot be kept")

    def stays(self, visual: Tensor, budget: Budget, weights: Tensor | None) -> Tensor:
        assert weights is not None and budget.retention is not None
        total = visual.sum(dim=1)
        count = (total * budget.retention).round().long().clamp(min=1).minimum(total)
        if budget.max_tokens is not None:
            count = count.clamp(max=budget.max_tokens)
        order = weights.masked_fill(~visual, -1.0).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        return visual & (order < count[:, None])


@dataclass(frozen=True)
class VTW(InnerMethod):
    """Withdraws every visual token before ``layer``; its paper finds that layer by calibration.

    >>> sharpv.apply(model, VTW(layer=14))
    """

    name: ClassVar[str] = "vtw"
    summary: ClassVar[str] = "inside the model: no visual token from a layer on"
    adaptive: ClassVar[bool] = True
    cost: ClassVar[str] = "1"
    paper: ClassVar[str] = "2405.05803"

    def require_budget(self, budget: Budget) -> None:
        if budget != Budget():
            raise ValueError("vtw withdraws all visual tokens at its layer: it takes no budget, choose layer=")

    def stays(self, visual: Tensor, budget: Budget, weights: Tensor | None) -> Tensor:
        return torch.zeros_like(visual)
