"""VTW: from a layer on, no visual token at all.

Paper: https://arxiv.org/abs/2405.05803 (AAAI 2025), made for images. Written from its description. What the layers
after it have not seen is not in their KV caches either, so it stands in the place of the second stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .base import STAGES, Withdrawal

if TYPE_CHECKING:
    from torch import Tensor


@STAGES.register
@dataclass(frozen=True)
class VTW(Withdrawal):
    """Withdraws every visual token before ``layer``; its paper finds that layer by calibration.

    >>> sharpv.apply(model, memory=VTW(layer=14))
    """

    name: ClassVar[str] = "vtw"
    summary: ClassVar[str] = "inside the model: no visual token from a layer on"
    paper: ClassVar[str] = "2405.05803"

    def stays(self, visual: Tensor, weights: Tensor | None) -> Tensor:
        return visual & False
