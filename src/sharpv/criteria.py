"""What decides, layer by layer, whether the visual keys and values are still needed after prefill.

Source of the one rule here: SharpV, https://arxiv.org/abs/2511.08003, stage 2. A criterion is apart from the cache that
forgets (:mod:`sharpv.memory`), so that another rule needs no other cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerView:
    """What a criterion may see of one decoder layer after its prefill; never an attention matrix.

    Attributes:
        index: of the layer.
        hidden: ``(B, N, D)`` the layer's input over the prompt.
        reference: ``(B, N, D)`` the first layer's input.
        visual: ``(B, N)`` bool, the surviving visual tokens.
        keys, values: ``(B, heads, N, head_dim)`` as the cache holds them.
    """

    index: int
    hidden: Tensor
    reference: Tensor
    visual: Tensor
    keys: Tensor
    values: Tensor


@runtime_checkable
class Criterion(Protocol):
    """What decides whether a layer forgets: ``measure`` gives one number per sample, ``forget`` judges it."""

    def measure(self, layer: LayerView) -> Tensor:
        """One float per sample, ``(B,)``; NaN where a sample has no visual token."""
        ...

    def forget(self, measured: Tensor) -> Tensor:
        """Whether the layer forgets the sample's visual entries, ``(B,)`` bool."""
        ...


@dataclass(frozen=True)
class Cosine:
    """The paper's rule: Discard(l) if cos(V_l, V) < M.

    A low cosine is not the same as unused: on the embedded model the two layers of the lowest cosine are among those
    that answers of several tokens are read from (docs/findings.md). One-token answers cannot be affected, since prefill
    is unchanged.

    Args:
        threshold: M in [-1, 1]. Paper: 0.2.
    """

    threshold: float = 0.2

    def __post_init__(self) -> None:
        if not -1.0 <= self.threshold <= 1.0:
            raise ValueError(f"memory is a cosine threshold and must lie in [-1, 1], got {self.threshold}")

    def measure(self, layer: LayerView) -> Tensor:
        cosine = torch.cosine_similarity(layer.hidden.float(), layer.reference.float(), dim=-1)
        return cosine.where(layer.visual, 0.0).sum(dim=1) / layer.visual.sum(dim=1)

    def forget(self, measured: Tensor) -> Tensor:
        return measured < self.threshold


def get_criterion(memory: float | Criterion | None) -> Criterion | None:
    """The criterion behind the ``memory=`` argument: a number is the paper's M, None switches the stage off."""
    if memory is None or (not isinstance(memory, type) and isinstance(memory, Criterion)):
        return memory
    if isinstance(memory, bool) or not isinstance(memory, (int, float)):
        raise TypeError(f"memory must be a number, a criterion or None, got {memory!r}")
    return Cosine(float(memory))
