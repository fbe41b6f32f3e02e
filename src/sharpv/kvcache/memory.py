"""Memory SharpV: the language model's layers that have stopped looking at the video forget its keys and values.

Source: SharpV, https://arxiv.org/abs/2511.08003, stage 2. Let V be the visual tokens' inputs to the first decoder layer
and V_l those to layer l. The rule is Discard(l) if cos(V_l, V) < M, with M = 0.2: once layer l has computed its prefill
attention it keeps no key/value entries of visual tokens; text stays. Prefill is unchanged, decoding reads less.

Open in the paper, decided here: cos is taken per token, between its input to layer l and its own input to layer 0, and
averaged over the sample's surviving visual tokens; the decision falls per layer and per sample, once, at the end of
prefill, for all layers together: so the host waits once, and layers can be compared with each other.

What decides (:mod:`.criteria`) is apart from the cache that forgets (:mod:`.cache`); the hooks here bring both
together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from .attention import attend_again
from .base import Criterion, LayerView
from .cache import CACHE, ForgettingLayer, new_cache


@dataclass
class MemoryTrace:
    """What the memory stage saw and did on one prompt; travels on the cache.

    Attributes:
        visual: ``(samples, N)`` bool, the surviving visual tokens of the pruned prompt.
        valid: ``(samples, N)`` bool, False at its padding.
        measured: per layer, what the criterion measured, ``(samples,)`` float32.
        forgotten: per layer, whether the visual entries went, ``(samples,)`` bool.
        quantity: what the criterion measured, in words.
    """

    visual: Tensor
    valid: Tensor
    measured: dict[int, Tensor] = field(default_factory=dict)
    forgotten: dict[int, Tensor] = field(default_factory=dict)
    withdrawn: dict[int, Tensor] = field(default_factory=dict)
    """Per layer, how many visual tokens never came so far, ``(samples,)``: the doing of a method inside the model."""
    quantity: str = ""
    awaited: bool = True
    """Whether the prompt's prefill is still to come."""
    postponed: bool = False
    """Whether the prompt ends before its question: the decision then falls after the next pass, which brings that."""
    reading: Literal["prompt", "question"] | None = None
    """What the running pass brings, where it is measured."""
    past: int = 0
    """Columns of the cache before the question."""
    question: Tensor | None = None
    """``(samples, n)`` bool, False at padding among the question's tokens; None: none is."""
    reference: Tensor | None = None
    """The first layer's input, while the prompt is being prefilled."""
    attention: tuple[dict[str, Any], Tensor] | None = None
    """What the current layer's attention was given and returned, while the prompt is being prefilled."""
    weights: Tensor | None = None
    """What the last prompt token pays to each one, ``(B, N)``, for a method that reads it; likewise."""
    shorter: Any = None
    """The columns that go on where tokens leave inside the model (:mod:`sharpv.kvcache.withdrawal`); likewise."""


TRACE = "_sharpv_memory"


def enable_forgetting(cache: Cache, config: PreTrainedConfig, visual: Tensor, valid: Tensor) -> None:
    """Make an empty dynamic cache one that can forget; layers with a sliding window or a state are left alone.

    ``visual`` and ``valid`` are those of :class:`MemoryTrace`.

    Raises:
        ValueError: a cache of another kind, or one that is not empty.
    """
    if type(cache) is not DynamicCache or cache.get_seq_length() > 0:
        raise ValueError(
            f"memory needs an empty DynamicCache, got {type(cache).__name__} of length {int(cache.get_seq_length())}: "
            "pass memory=None to keep this cache"
        )
    layers = cache.layers or new_cache(config).layers
    cache.layers = [ForgettingLayer() if type(layer) is DynamicLayer else layer for layer in layers]
    put_trace(cache, MemoryTrace(visual, valid))


def put_trace(cache: Cache, trace: MemoryTrace) -> None:
    """A copy of a trace has tables of its own."""
    tables = dict(trace.measured), dict(trace.forgotten), dict(trace.withdrawn)
    setattr(cache, TRACE, replace(trace, measured=tables[0], forgotten=tables[1], withdrawn=tables[2]))


def drop_trace(cache: Cache) -> None:
    """Make a cache that was reset an ordinary one again."""
    if trace_of(cache) is not None:
        delattr(cache, TRACE)


def trace_of(cache: Any) -> MemoryTrace | None:
    """The memory stage's trace on a cache, if it has been there."""
    return getattr(cache, TRACE, None)


class MemoryStage:
    """Hooks on the decoder layers. They act only on caches prepared by :func:`enable_forgetting`."""

    def __init__(self, criterion: Criterion) -> None:
        self.criterion = criterion

    def attach(self, layers: nn.ModuleList) -> list[RemovableHandle]:
        self.criterion.require_depth(len(layers))
        handles = hooked(layers, self.before, self.after)
        attentions = [getattr(layer, "self_attn", None) for layer in layers]
        handles += [
            attention.register_forward_hook(self.attended, with_kwargs=True)
            for attention in attentions
            if isinstance(attention, nn.Module)
        ]
        return handles

    def before(
        self, index: int, cache: Cache, trace: MemoryTrace, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, Any] | None:
        """Keep the first layer's input for comparison; hide forgotten columns from the attention mask."""
        hidden = hidden_of(args, kwargs)
        if index == 0 and trace.awaited:
            trace.awaited, trace.reading = False, "prompt"
            require_prefill(hidden, kwargs.get("attention_mask"), trace)
            trace.reference = hidden.detach()
        elif index == 0 and trace.postponed:
            trace.postponed, trace.reading = False, "question"
            trace.past = int(cache.get_seq_length())
        return hide_forgotten(cache.layers[index], module, args, kwargs)

    def attended(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """At prefill: keep what the layer's attention was given and returned, until the layer ends."""
        trace = trace_of(kwargs.get(CACHE))
        if trace is not None and trace.reading is not None:
            trace.attention = kwargs, output[0]

    def after(
        self,
        index: int,
        cache: Cache,
        trace: MemoryTrace,
        module: nn.Module,
        args: Any,
        kwargs: dict[str, Any],
        output: Any,
    ) -> None:
        """At prefill, once the layer has attended: measure, and after the last layer forget."""
        if trace.reading is None:
            return
        layer = cache.layers[index]
        split = trace.postponed or trace.reading == "question"  # the prompt and its question come one after the other
        now = not split or self.criterion.reads_question == (trace.reading == "question")
        # gradient checkpointing runs the layers without a cache
        if now and isinstance(layer, ForgettingLayer) and layer.is_initialized:
            measured = self.criterion.measure(self._view(index, layer, module, hidden_of(args, kwargs), trace))
            # beams and returned sequences repeat each sample
            trace.measured[index] = measured[:: len(measured) // len(trace.visual)]
        trace.attention = None
        if index == len(cache.layers) - 1:
            trace.reading, trace.reference = None, None
            if not trace.postponed:
                self._forget(cache, trace)

    def _view(
        self, index: int, layer: ForgettingLayer, module: nn.Module, hidden: Tensor, trace: MemoryTrace
    ) -> LayerView:
        assert trace.attention is not None
        given, attended = trace.attention
        visual, valid = of_rows(trace.visual, hidden), of_rows(trace.valid, hidden)
        length, past = visual.shape[1], 0
        if trace.reading == "question":
            length, past = trace.past + hidden.shape[1], trace.past
            asked = (
                trace.question if trace.question is not None else visual.new_ones(len(trace.visual), hidden.shape[1])
            )
            visual = functional.pad(visual, (0, hidden.shape[1]))
            valid = torch.cat([valid, of_rows(asked, hidden)], dim=1)
        keys, values = layer.keys[:, :, :length], layer.values[:, :, :length]
        return LayerView(
            index=index,
            hidden=hidden[:, : length - past].detach(),
            reference=hidden if trace.reference is None else trace.reference[:, :length].to(hidden.device),
            visual=visual,
            valid=valid,
            keys=keys,
            values=values,
            attended=attended[:, : length - past].detach(),
            attend=partial(attend_again, cast(Any, module).self_attn, given, keys, values, past=past),
        )

    def _forget(self, cache: Cache, trace: MemoryTrace) -> None:
        """Judge all layers, and let them forget. One host synchronisation, which sizes what they keep."""
        trace.quantity = self.criterion.quantity
        if not trace.measured:
            return
        device = trace.visual.device  # layers may lie on several
        judged = self.criterion.forget(torch.stack([measured.to(device) for measured in trace.measured.values()]))
        fewest, most = (judged * trace.visual.sum(dim=1)).aminmax(dim=1)
        bounds = torch.stack([fewest, most], dim=1).tolist()
        for index, forgotten, (least, largest) in zip(trace.measured, judged, bounds, strict=True):
            trace.forgotten[index] = forgotten
            layer = cast(ForgettingLayer, cache.layers[index])
            entries = of_rows(trace.visual & forgotten[:, None], layer.keys)
            layer.forget(entries, least, largest)


def of_rows(samples: Tensor, like: Tensor) -> Tensor:
    """What belongs to samples, for the rows of a batch: beams and returned sequences repeat each sample."""
    return samples.to(like.device).repeat_interleave(len(like) // len(samples), dim=0)


def hooked(layers: nn.ModuleList, before: Callable[..., Any], after: Callable[..., Any]) -> list[RemovableHandle]:
    """Call ``before`` and ``after`` around each layer, as :func:`on_prepared` does."""
    handles = []
    for index, layer in enumerate(layers):
        handles.append(layer.register_forward_pre_hook(partial(on_prepared, before, index), with_kwargs=True))
        handles.append(layer.register_forward_hook(partial(on_prepared, after, index), with_kwargs=True))
    return handles


def on_prepared(
    hook: Callable[..., Any], index: int, module: nn.Module, args: Any, kwargs: dict[str, Any], *output: Any
) -> Any:
    """``hook`` with the layer's index, the cache and its trace first; nothing where the cache was not prepared."""
    cache = kwargs.get(CACHE)
    trace = trace_of(cache)
    return None if trace is None else hook(index, cache, trace, module, args, kwargs, *output)


def require_prefill(hidden: Tensor, mask: Any, trace: MemoryTrace) -> None:
    """Refuse a prefill in pieces, and an attention mask whose columns cannot be hidden."""
    if mask is not None and not isinstance(mask, Tensor):
        raise ValueError(
            f"what happens inside the model needs attention masks that are tensors, got {type(mask).__name__} "
            "(flex_attention): load the model with attn_implementation='sdpa', or pass memory=None"
        )
    if hidden.shape[1] < trace.visual.shape[1]:
        raise ValueError(
            f"what happens inside the model needs whole prompts, but the first forward pass brings {hidden.shape[1]} "
            f"of {trace.visual.shape[1]} tokens: prefill in one piece, or pass memory=None"
        )


def hide_forgotten(
    layer: Any, module: nn.Module, args: Any, kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]] | None:
    """A decoder layer's arguments with an attention mask that fits what its cache layer has stored; None: no change."""
    if not isinstance(layer, ForgettingLayer) or layer.columns is None:
        return None
    hidden = hidden_of(args, kwargs)
    attention = cast(Any, module).self_attn.config._attn_implementation
    mask = layer.narrow(kwargs.get("attention_mask"), hidden.shape[1], attention, hidden.dtype)
    return args, {**kwargs, "attention_mask": mask}


def hidden_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A decoder layer's input among its arguments."""
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden
