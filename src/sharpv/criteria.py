"""What decides, layer by layer, whether the visual keys and values are still needed after prefill.

The paper's rule asks how far the visual tokens have come from their own input (SharpV, https://arxiv.org/abs/2511.08003,
stage 2). The other one here asks what they still add to the token that the answer starts from. A criterion is apart
from the cache that forgets (:mod:`sharpv.memory`), so that another rule needs no other cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import is_real, number, set_numbers, whole


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


class Criterion:
    """What decides which layers forget: :meth:`measure` gives a number per layer and sample, :meth:`forget` judges.

    Attributes:
        quantity: what is measured, in words, for the report.
    """

    quantity: str = "measured"

    def measure(self, layer: LayerView) -> Tensor:
        """One float per sample, ``(B,)``; NaN where a sample has no visual token."""
        raise NotImplementedError

    def forget(self, measured: Tensor) -> Tensor:
        """Which layers forget the visual entries of which sample: ``(layers, B)`` of what was measured -> bool."""
        raise NotImplementedError

    def require_depth(self, layers: int) -> None:
        """Refuse, with a ValueError, a model with so many decoder layers that the criterion was not made for."""


@dataclass(frozen=True)
class Cosine(Criterion):
    """The paper's rule: Discard(l) if cos(V_l, V) < M.

    A low cosine is not the same as unused: on the embedded model the two layers of the lowest cosine are among those
    that answers of several tokens are read from (docs/findings.md). One-token answers cannot be affected, since prefill
    is unchanged.

    Args:
        threshold: M in [-1, 1]. Paper: 0.2.
    """

    threshold: float = 0.2
    quantity = "similarity to the input"

    def __post_init__(self) -> None:
        threshold = number("memory is a cosine threshold and", self.threshold, least=-1, most=1)
        set_numbers(self, threshold=threshold)

    def measure(self, layer: LayerView) -> Tensor:
        cosine = torch.cosine_similarity(layer.hidden.float(), layer.reference.float(), dim=-1)
        return cosine.where(layer.visual, 0.0).sum(dim=1) / layer.visual.sum(dim=1)

    def forget(self, measured: Tensor) -> Tensor:
        return measured < self.threshold


@dataclass(frozen=True)
class Contribution(Criterion):
    """A layer forgets the video if its visual keys and values add little to the last tokens of the prompt.

    ::

        contribution(l) = || a_l - a_l without the visual keys || / || x_l ||

    with x_l a prompt token's residual stream entering layer l and a_l what attention adds to it. A few queries a layer
    against the stored keys: O(n d), no attention matrix, whatever kernel computes the rest. Not the paper's.
    Exactly one of the first three:

    Args:
        threshold: forgets below this contribution.
        relative: forgets below this share of the sample's largest contribution.
        kv_budget: keeps the layers of largest contribution, so many that this share of the visual entries stays (at
            least one layer), exactly as many in every sample.
        rows: how many of the last prompt tokens are asked; their contributions are averaged. One alone misses layers
            that later tokens of the answer read (docs/results/second_stage_pocket.md).

    Raises:
        ValueError: none or several of the three, or one out of range.

    >>> sharpv.apply(model, memory=sharpv.Contribution(kv_budget=0.25))
    """

    threshold: float | None = None
    relative: float | None = None
    kv_budget: float | None = None
    rows: int = 4
    quantity = "contribution to the last prompt tokens"

    def __post_init__(self) -> None:
        given = {name: value for name in ("threshold", "relative", "kv_budget") if (value := getattr(self, name))}
        if len(given) != 1:
            raise ValueError(f"Contribution takes exactly one of threshold, relative, kv_budget, above 0; got {given}")
        ((name, value),) = given.items()
        value = number(name, value, above=0, most=math.inf if name == "threshold" else 1)
        rows = whole("rows", self.rows, least=1)
        # a 0 counts as not given
        set_numbers(self, **{"threshold": None, "relative": None, "kv_budget": None, name: value, "rows": rows})

    def measure(self, layer: LayerView) -> Tensor:
        rows = min(self.rows, layer.hidden.shape[1])
        blind = layer.attend(layer.valid & ~layer.visual, rows)
        added = (layer.attended[:, -rows:].float() - blind.float()).norm(dim=-1)
        share = added / layer.hidden[:, -rows:].float().norm(dim=-1)
        return share.mean(dim=1).where(layer.visual.any(dim=1), torch.nan)

    def forget(self, measured: Tensor) -> Tensor:
        if self.threshold is not None:
            return measured < self.threshold
        if self.relative is not None:
            return measured < self.relative * measured.amax(dim=0)
        assert self.kv_budget is not None
        kept = max(int(self.kv_budget * len(measured) + 1e-9), 1)
        rank = measured.argsort(dim=0, descending=True, stable=True).argsort(dim=0)
        return (rank >= kept) & ~measured.isnan()


@dataclass(frozen=True)
class Layers(Criterion):
    """The named layers keep the visual keys and values; every other layer forgets them, whatever the prompt.

    Prefill computes nothing for it, and a batch stays rectangular. Which layers a model
    answers from can be found with :func:`sharpv.calibrate`. Not the paper's.

    Args:
        keep: indices of decoder layers, counted from 0, in a tuple, list, range or array; none: all forget.

    Raises:
        TypeError: no collection of numbers.
        ValueError: an index that is negative or there twice; on :func:`sharpv.apply`, one that the model lacks.

    >>> sharpv.apply(model, memory=sharpv.Layers(keep=(0, 23, 24)))
    """

    keep: tuple[int, ...]
    quantity = "whether it is to be kept"

    def __post_init__(self) -> None:
        if isinstance(self.keep, str) or not isinstance(self.keep, Iterable):
            raise TypeError(f"keep must hold layers, such as keep=(0, 23), got {self.keep!r}")
        keep = sorted(whole("a layer of keep", index) for index in self.keep)
        object.__setattr__(self, "keep", tuple(keep))
        if len(set(keep)) < len(keep) or any(index < 0 for index in keep):
            raise ValueError(f"keep must hold different layers, counted from 0, got {self.keep}")

    def require_depth(self, layers: int) -> None:
        if self.keep and self.keep[-1] >= layers:
            raise ValueError(f"this model has {layers} decoder layers, counted from 0; got keep={self.keep}")

    def measure(self, layer: LayerView) -> Tensor:
        there = layer.visual.any(dim=1)
        return there.float().mul(layer.index in self.keep).where(there, torch.nan)

    def forget(self, measured: Tensor) -> Tensor:
        return measured < 1.0


def get_criterion(memory: float | Criterion | None) -> Criterion | None:
    """The criterion behind the ``memory=`` argument: a number is the paper's M, None switches the stage off."""
    if memory is None or isinstance(memory, Criterion):
        return memory
    if not is_real(memory):
        raise TypeError(f"memory must be a number, a criterion or None, got {memory!r}")
    return Cosine(memory)


def read_memory(text: str) -> float | Criterion | None:
    """The ``memory=`` argument as it is written on a command line.

    Raises:
        ValueError: neither 'off', nor a number, nor 'layers:' and indices.

    >>> read_memory("layers:0+23+24")
    Layers(keep=(0, 23, 24))
    """
    kind, _, rest = text.partition(":")
    try:
        if kind == "layers":
            return Layers(tuple(int(part) for part in rest.split("+") if part))
        return None if text == "off" else float(text)
    except ValueError as error:
        accepted = "a number, 'off' or layers that keep the video as 'layers:0+23+24'"
        raise ValueError(f"memory takes {accepted}, got {text!r}") from error
