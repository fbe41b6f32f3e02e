"""Memory SharpV: the language model's layers that have stopped looking at the video forget its keys and values.

Source: SharpV, https://arxiv.org/abs/2511.08003, stage 2. Let V be the visual tokens' inputs to the first decoder layer
and V_l those to layer l. The rule is Discard(l) if cos(V_l, V) < M, with M = 0.2: once layer l has computed its prefill
attention it keeps no key/value entries of visual tokens; text stays. Prefill is unchanged, decoding reads less.

Open in the paper, decided here: cos is taken per token, between its input to layer l and its own input to layer 0, and
averaged over the sample's surviving visual tokens; the decision falls per layer and per sample, once, at prefill.

This is the only file that knows transformers' cache classes. What decides (:mod:`sharpv.criteria`) is apart from the
cache layer that forgets (:class:`ForgettingLayer`) and from the hooks that bring them together (:class:`MemoryStage`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer
from transformers.utils import ModelOutput

from .criteria import Criterion, LayerView

OLD_CACHE = "past_key_values"
CACHE = "cache" if hasattr(ModelOutput, OLD_CACHE) else OLD_CACHE
"""What ``generate``, ``forward``, decoder layers and their outputs call the cache: transformers 5.24 renamed it, and
lets its outputs answer to the old name."""


class ForgettingLayer(DynamicLayer):
    """A cache layer with a logical length: to the model it is as long as the sequence, but it may store less.

    ``columns[b, p]`` is the logical column of stored column p in row b, or -1 where a row stores fewer entries than the
    longest row of the batch (rows are aligned to the right). None means that nothing has been forgotten.
    """

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.columns: Tensor | None = None
        self.prompt_length = 0
        self.ragged = False

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        new = key_states.shape[-2]
        if self.columns is not None:
            self.columns = torch.cat([self.columns, self._next_columns(new)], dim=1)
        self.length += new
        return super().update(key_states, value_states, *args, **kwargs)

    def get_seq_length(self) -> int:
        return self.length

    def forget(self, entries: Tensor) -> None:
        """Drop the prompt's ``entries``, ``(B, prompt_length)`` bool, for good. One host synchronisation."""
        unchecked = entries.new_zeros(len(entries), self.length - entries.shape[1])
        keep = ~torch.cat([entries, unchecked], dim=1)
        shortest, longest = torch.stack(keep.sum(dim=1).aminmax()).tolist()
        if shortest == self.length:
            return
        columns = keep.long().argsort(dim=1, stable=True)[:, -longest:]
        gather = columns[:, None, :, None].expand(-1, self.keys.shape[1], -1, self.keys.shape[3])
        self.keys = self.keys.gather(2, gather)
        gather = columns[:, None, :, None].expand(-1, self.values.shape[1], -1, self.values.shape[3])
        self.values = self.values.gather(2, gather)
        self.columns = columns.masked_fill(~keep.gather(1, columns), -1)
        self.prompt_length = entries.shape[1]
        self.ragged = shortest < longest

    def narrow(self, mask: Tensor | None, new: int, attention: str, dtype: torch.dtype) -> Tensor | None:
        """An attention mask made for the logical length, cut down to the columns that will be stored.

        Args:
            mask: None, ``(B, K)`` (flash attention), or ``(B or 1, 1, q, K)`` bool or additive float.
            new: tokens about to be added.
            attention: the model's attention implementation, which decides what a missing mask must become.
            dtype: of an additive mask that has to be made.
        """
        if self.columns is None:
            return mask
        columns = torch.cat([self.columns, self._next_columns(new)], dim=1)
        stored = columns >= 0
        columns = columns.clamp(min=0)
        if mask is None:
            if not self.ragged:
                return None
            if attention.startswith("flash"):
                return stored
            mask = stored[:, None, None, :].expand(-1, 1, new, -1)
            if attention != "eager":
                return mask
            return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
        if mask.ndim == 2:
            return mask.gather(1, columns) & stored
        mask = mask.expand(len(columns), *mask.shape[1:])
        mask = mask.gather(3, columns[:, None, None, :].expand(-1, *mask.shape[1:3], -1))
        stored = stored[:, None, None, :]
        return mask & stored if mask.dtype == torch.bool else mask.masked_fill(~stored, torch.finfo(mask.dtype).min)

    def crop(self, tokens_to_remove: int) -> None:
        if self.columns is not None and self.length - abs(tokens_to_remove) < self.prompt_length:
            raise ValueError(
                f"cannot crop {abs(tokens_to_remove)} of {self.length} tokens: the visual entries of the prompt's "
                f"{self.prompt_length} tokens are forgotten and cannot be read again"
            )
        super().crop(tokens_to_remove)
        if self.is_initialized:
            self.length -= abs(tokens_to_remove)
            if self.columns is not None and tokens_to_remove:
                self.columns = self.columns[:, : -abs(tokens_to_remove)]

    def reset(self) -> None:
        super().reset()
        self.length, self.columns, self.prompt_length, self.ragged = 0, None, 0, False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        if self.columns is not None:
            self.columns = self.columns.index_select(0, beam_idx.to(self.columns.device))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        if self.columns is not None:
            self.columns = self.columns.repeat_interleave(repeats, dim=0)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        if self.columns is not None:
            self.columns = self.columns[indices]

    def _next_columns(self, new: int) -> Tensor:
        assert self.columns is not None
        later = torch.arange(self.length, self.length + new, device=self.columns.device)
        return later.expand(len(self.columns), -1)


@dataclass
class MemoryTrace:
    """What the memory stage saw and did on one prompt; travels on the cache.

    Attributes:
        visual: ``(samples, N)`` bool, the surviving visual tokens of the pruned prompt.
        measured: per layer, what the criterion measured, ``(samples,)`` float32.
        forgotten: per layer, whether the visual entries went, ``(samples,)`` bool.
    """

    visual: Tensor
    measured: dict[int, Tensor] = field(default_factory=dict)
    forgotten: dict[int, Tensor] = field(default_factory=dict)
    awaited: bool = True
    """Whether the prompt's prefill is still to come."""
    reference: Tensor | None = None
    """The first layer's input, while the prompt is being prefilled."""


TRACE = "_sharpv_memory"


def take_cache(kwargs: dict[str, Any]) -> Any:
    """The cache among keyword arguments, whose old name is replaced by this transformers' own."""
    if OLD_CACHE in kwargs:
        kwargs.setdefault(CACHE, kwargs.pop(OLD_CACHE))
    return kwargs.get(CACHE)


def new_cache(config: PreTrainedConfig) -> DynamicCache:
    """The cache that ``generate`` would make for this model."""
    return DynamicCache(config=config.get_text_config(decoder=True))


def enable_forgetting(cache: Cache, config: PreTrainedConfig, visual: Tensor) -> None:
    """Make an empty dynamic cache one that can forget; layers with a sliding window or a state are left alone.

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
    setattr(cache, TRACE, MemoryTrace(visual))


def drop_trace(cache: Cache) -> None:
    """Make a cache that was reset an ordinary one again."""
    if trace_of(cache) is not None:
        delattr(cache, TRACE)


def trace_of(cache: Any) -> MemoryTrace | None:
    """The memory stage's trace on a cache, if it has been there."""
    return getattr(cache, TRACE, None)


def kv_bytes(cache: Cache) -> int:
    """Bytes that a dynamic cache's keys and values occupy, measured on their storages."""
    return sum(
        tensor.untyped_storage().nbytes()
        for layer in cache.layers
        for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None))
        if isinstance(tensor, Tensor)
    )


def kv_bytes_of_length(cache: Cache, length: int) -> int:
    """Bytes that the same cache would occupy had every full-attention layer stored ``length`` tokens per row."""
    total = 0
    for layer in cache.layers:
        for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)):
            if isinstance(tensor, Tensor) and tensor.ndim == 4:
                stored = min(length, layer.sliding_window - 1) if getattr(layer, "is_sliding", False) else length
                total += tensor[:, :, :1].numel() * stored * tensor.element_size()
    return total


class MemoryStage:
    """Hooks on the decoder layers. They act only on caches prepared by :func:`enable_forgetting`."""

    def __init__(self, criterion: Criterion) -> None:
        self.criterion = criterion

    def attach(self, layers: nn.ModuleList) -> list[RemovableHandle]:
        handles = []
        for index, layer in enumerate(layers):
            handles.append(layer.register_forward_pre_hook(partial(self.before, index), with_kwargs=True))
            handles.append(layer.register_forward_hook(partial(self.after, index), with_kwargs=True))
        return handles

    def before(self, index: int, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """Keep the first layer's input for comparison; hide forgotten columns from the attention mask."""
        cache = kwargs.get(CACHE)
        trace = trace_of(cache)
        if cache is None or trace is None:
            return None
        hidden = _hidden(args, kwargs)
        if index == 0 and trace.awaited:
            trace.awaited = False
            if hidden.shape[1] < trace.visual.shape[1]:
                raise ValueError(
                    f"the memory stage compares whole prompts, but the first forward pass brings {hidden.shape[1]} of "
                    f"{trace.visual.shape[1]} tokens: prefill in one piece, or pass memory=None"
                )
            trace.reference = hidden.detach()
        layer = cache.layers[index]
        if not isinstance(layer, ForgettingLayer) or layer.columns is None:
            return None
        attention = cast(Any, module).self_attn.config._attn_implementation
        mask = layer.narrow(kwargs.get("attention_mask"), hidden.shape[1], attention, hidden.dtype)
        return args, {**kwargs, "attention_mask": mask}

    def after(self, index: int, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """At prefill, once the layer has attended: measure, decide, forget."""
        cache = kwargs.get(CACHE)
        trace = trace_of(cache)
        if cache is None or trace is None or trace.reference is None:
            return
        layer = cache.layers[index]
        # gradient checkpointing runs the layers without a cache
        if isinstance(layer, ForgettingLayer) and layer.is_initialized:
            hidden, length = _hidden(args, kwargs), trace.visual.shape[1]
            # beams and returned sequences repeat each sample
            repeats = len(hidden) // len(trace.visual)
            visual = trace.visual.to(hidden.device).repeat_interleave(repeats, dim=0)
            reference = trace.reference.to(hidden.device)
            keys, values = layer.keys[:, :, :length], layer.values[:, :, :length]
            view = LayerView(index, hidden[:, :length].detach(), reference[:, :length], visual, keys, values)
            measured = self.criterion.measure(view)
            forgotten = self.criterion.forget(measured)
            trace.measured[index], trace.forgotten[index] = measured[::repeats], forgotten[::repeats]
            layer.forget(visual & forgotten[:, None])
        if index == len(cache.layers) - 1:
            trace.reference = None


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden
