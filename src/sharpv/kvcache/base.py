"""What a second stage is: a frozen dataclass that decides what the language model's layers keep of the video.

Two kinds. A :class:`Criterion` lets every layer read the whole prompt and decides afterwards which of them forget the
visual keys and values. A :class:`Withdrawal` lets visual tokens leave the model before a layer, during prefill. Neither
sees a model; :mod:`.memory` and :mod:`.withdrawal` do for them what has to be done to one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..checks import whole
from ..registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SecondStage(ABC):
    """Base of all second stages; fields of a subclass are its parameters."""

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str] = ""
    """Its arXiv number."""
    shortens: ClassVar[bool] = False
    """Whether prefill itself gets shorter inside the model, so that logits have fewer rows than the prompt."""

    def require_depth(self, layers: int) -> None:  # noqa: B027 - most stages fit every model
        """Refuse, with a ValueError, a model with so many decoder layers that the stage was not made for."""


STAGES: Registry[SecondStage] = Registry(SecondStage, "second stage", "sharpv.second_stages")


@dataclass(frozen=True)
class LayerView:
    """What a criterion may see of one decoder layer after its prefill; never an attention matrix.

    Attributes:
        index: of the layer.
        hidden: ``(B, N, D)`` the layer's input over the prompt.
        reference: ``(B, N, D)`` the first layer's input.
        visual: ``(B, N)`` bool, the surviving visual tokens.
        valid: ``(B, N)`` bool, False at padding, which is on the left.
        keys, values: ``(B, heads, N, head_dim)`` as the cache holds them.
        attended: ``(B, N, D)`` what the layer's attention added to the residual stream.
        attend: ``attend(visible, rows)`` is what the last ``rows`` tokens would have got, ``(B, rows, D)``, had they
            seen only themselves and the columns ``visible`` ``(B, N)`` bool. It runs the layer's own attention on so
            many queries against the stored keys.
    """

    index: int
    hidden: Tensor
    reference: Tensor
    visual: Tensor
    valid: Tensor
    keys: Tensor
    values: Tensor
    attended: Tensor
    attend: Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Criterion(SecondStage):
    """Decides which layers forget: :meth:`measure` gives a number per layer and sample, :meth:`forget` judges.

    A criterion of your own derives from this, is a frozen dataclass with a ``name``, and registers with
    ``@STAGES.register``; it can then be named on the command line and in a configuration file.
    """

    quantity: ClassVar[str] = "measured"
    """What is measured, in words, for the report."""
    reads_question: ClassVar[bool] = False
    """Whether :meth:`measure` looks at the last prompt tokens, and not at those of the video alone."""

    @abstractmethod
    def measure(self, layer: LayerView) -> Tensor:
        """One float per sample, ``(B,)``; NaN where a sample has no visual token."""

    @abstractmethod
    def forget(self, measured: Tensor) -> Tensor:
        """Which layers forget the visual entries of which sample: ``(layers, B)`` of what was measured -> bool."""


@dataclass(frozen=True)
class Withdrawal(SecondStage):
    """Visual tokens leave the language model before decoder layer ``layer`` (counted from 0)."""

    shortens: ClassVar[bool] = True
    reads_attention: ClassVar[bool] = False
    """Whether :meth:`stays` needs attention weights, those of the last prompt token."""

    layer: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", whole("layer", self.layer, least=1))

    @abstractmethod
    def stays(self, visual: Tensor, weights: Tensor | None) -> Tensor:
        """Which visual tokens go on from ``layer``, ``(B, N)`` bool.

        Args:
            visual: ``(B, N)`` bool, the visual tokens of the prompt.
            weights: ``(B, N)`` what the last prompt token pays to each in the layer before, mean over heads.
        """
