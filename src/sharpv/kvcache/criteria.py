"""Criteria: what decides, layer by layer, whether the visual keys and values are still needed after prefill.

The paper's rule asks how far the visual tokens have come from their own input (SharpV, https://arxiv.org/abs/2511.08003,
stage 2). Another one asks what they still add to the token that the answer starts from. A criterion is apart
from the cache that forgets (:mod:`sharpv.kvcache.memory`), so that another rule needs no other cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..checks import is_real, number, set_numbers, whole
from ..lazy import lazy
from ..methods.budget import rank
from .base import STAGES, Criterion, LayerView

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")


@STAGES.register
@dataclass(frozen=True)
class CosineThreshold(Criterion):
    """The paper's rule: Discard(l) if cos(V_l, V) < M.

    A low cosine is not the same as unused: on the embedded model the two layers of the lowest cosine are among those
    that answers of several tokens are read from (docs/findings.md). One-token answers cannot be affected, since prefill
    is unchanged.

    Args:
        threshold: M in [-1, 1]. Paper: 0.2.
    """

    name: ClassVar[str] = "cosine"
    summary: ClassVar[str] = "the paper's rule: layers whose visual tokens have left their input forget them"
    paper: ClassVar[str] = "2511.08003"
    quantity: ClassVar[str] = "similarity to the input"

    threshold: float = 0.2

    def __post_init__(self) -> None:
        threshold = number("memory is a cosine threshold and", self.threshold, least=-1, most=1)
        set_numbers(self, threshold=threshold)

    def measure(self, layer: LayerView) -> Tensor:
        cosine = torch.cosine_similarity(layer.hidden.float(), layer.reference.float(), dim=-1)
        return cosine.where(layer.visual, 0.0).sum(dim=1) / layer.visual.sum(dim=1)

    def forget(self, measured: Tensor) -> Tensor:
        return measured < self.threshold


@STAGES.register
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

    name: ClassVar[str] = "contribution"
    summary: ClassVar[str] = "layers whose visual keys add little to the last prompt tokens forget them"
    quantity: ClassVar[str] = "contribution to the last prompt tokens"
    reads_question: ClassVar[bool] = True

    threshold: float | None = None
    relative: float | None = None
    kv_budget: float | None = None
    rows: int = 4

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
        return (kept <= rank(measured.T).T) & ~measured.isnan()


@STAGES.register
@dataclass(frozen=True)
class KeepLayers(Criterion):
    """The named layers keep the visual keys and values; every other layer forgets them, whatever the prompt.

    Prefill computes nothing for it, and a batch stays rectangular. Which layers a model
    answers from can be found with :func:`sharpv.calibrate`. Not the paper's.

    Args:
        keep: indices of decoder layers, counted from 0, in a tuple, list, range or array; none: all forget.

    Raises:
        TypeError: no collection of numbers.
        ValueError: an index that is negative or there twice; on :func:`sharpv.apply`, one that the model lacks.

    >>> sharpv.apply(model, memory=sharpv.KeepLayers(keep=(0, 23, 24)))
    """

    name: ClassVar[str] = "layers"
    summary: ClassVar[str] = "the named layers keep the video, as 'sharpv calibrate' finds them"
    quantity: ClassVar[str] = "whether it is to be kept"

    keep: tuple[int, ...]

    def __post_init__(self) -> None:
        given = (self.keep,) if is_real(self.keep) else self.keep
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise TypeError(f"keep must hold layers, such as keep=(0, 23), got {given!r}")
        keep = sorted(whole("a layer of keep", index) for index in given)
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
