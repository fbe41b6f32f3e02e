"""FastV: after a few layers, only the visual tokens that the last prompt token attends to go on.

Paper: https://arxiv.org/abs/2403.06764 (ECCV 2024), made for images. Written from its description. What the layers
after it have not seen is not in their KV caches either, so it stands in the place of the second stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..checks import number
from ..methods.budget import rank
from .base import STAGES, Withdrawal

if TYPE_CHECKING:
    from torch import Tensor


@STAGES.register
@dataclass(frozen=True)
class FastV(Withdrawal):
    """Keeps the visual tokens that the last prompt token attends to most in the layer before ``layer``.

    Only that one row of attention is computed apart; fused kernels stay in use.

    Args:
        layer: tokens leave before this decoder layer. Paper: 2 or 3.
        retention: the KEPT share, in (0, 1], of the visual tokens that entered the language model. Paper: 0.5.

    >>> sharpv.apply(model, retention=0.5, memory=FastV(layer=3, retention=0.5))
    """

    name: ClassVar[str] = "fastv"
    summary: ClassVar[str] = "inside the model: from a layer on, only what the last prompt token attends to"
    paper: ClassVar[str] = "2403.06764"
    reads_attention: ClassVar[bool] = True

    retention: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "retention", number("retention", self.retention, above=0, most=1))

    def stays(self, visual: Tensor, weights: Tensor | None) -> Tensor:
        assert weights is not None
        total = visual.sum(dim=1)
        count = (total * self.retention).round().long().clamp(min=1).minimum(total)
        return visual & (rank(weights.masked_fill(~visual, -1.0)) < count[:, None])
