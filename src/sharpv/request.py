"""One request: what is known of it travels on the cache that holds its prompt, never on the model or the handle.

So threads, nested calls, and copies of a cache keep apart.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from .kvcache.cache import ForgettingLayer, kv_bytes, kv_bytes_of_length, rows_of
from .kvcache.memory import MemoryTrace, drop_trace, put_trace, trace_of
from .prompt.pruned import PrunedPrompt
from .reading import make_report
from .report import Report

REQUEST = "_sharpv_request"


@dataclass
class Request:
    """One request.

    Attributes:
        config: how it is pruned, in one line.
        layers: of the language model.
        prompt: the pruned prompt.
        said: ``(B, n)`` ids of what the cache holds after the full prompt, as far as they are known.
        generating: whether ``generate`` runs on this cache: its forward passes are then prepared already.
        trace: what the second stage did.
        kv_bytes: stored keys and values, and what the full prompt would have stored; None without a dynamic cache.
    """

    config: str
    layers: int
    prompt: PrunedPrompt
    said: Tensor
    generating: bool = False
    trace: MemoryTrace | None = None
    kv_bytes: tuple[int, int] | None = None

    @contextmanager
    def generation(self) -> Iterator[None]:
        """Around the model's own ``generate``."""
        self.generating = True
        try:
            yield
        finally:
            self.generating = False

    def repeated(self, times: int) -> Request:
        """For so many questions about the one sample of this request."""
        return replace(self, prompt=self.prompt.repeated(times), said=self.said.repeat_interleave(times, dim=0))

    def heard(self, sequences: Tensor, cache: Cache) -> None:
        """Note full sequences that were generated into this cache; those of beams are not what it holds."""
        if len(sequences) == len(self.prompt.ids) == rows_of(cache):
            self.said = sequences[:, self.prompt.ids.shape[1] : int(cache.get_seq_length()) + self.prompt.removed]

    def fed(self, tokens: Tensor | None, cache: Cache) -> None:
        """Note ids that a forward pass is about to add; embeddings have none."""
        past = int(cache.get_seq_length()) - self.prompt.visual.shape[1]
        if tokens is not None and len(tokens) == len(self.said) and self.said.shape[1] >= past:
            self.said = torch.cat([self.said[:, :past], tokens], dim=1)

    def ended(self, cache: Cache | None) -> None:
        """Weigh the cache and keep the second stage's trace; :attr:`report` reads them when it is asked for."""
        self.trace = trace_of(cache)
        if isinstance(cache, DynamicCache) and (stored := kv_bytes(cache)):  # gradient checkpointing leaves it empty
            full = int(cache.get_seq_length()) + self.prompt.removed
            self.kv_bytes = stored, kv_bytes_of_length(cache, full)
        vars(self).pop("report", None)

    @cached_property
    def report(self) -> Report:
        """What pruning did, in numbers; the first look waits for the device."""
        return make_report(self.config, self.layers, self.prompt, self.trace, self.kv_bytes)


def remember(cache: Cache, request: Request) -> None:
    """Put a request on the cache that holds, or is about to hold, its prompt."""
    setattr(cache, REQUEST, request)


def request_on(cache: Cache | None, empty: bool = False) -> Request | None:
    """The request on a cache; None for no cache, one without a pruned prompt, or (unless asked for) an empty one."""
    request: Request | None = getattr(cache, REQUEST, None)
    if cache is None or request is None:
        return None
    return request if empty or int(cache.get_seq_length()) > 0 else None


def copy_of(cache: Cache) -> Cache:
    """A cache that goes on from where this one is, and leaves it as it is.

    Layers of keys and values share them: what comes later is joined to a new tensor (transformers' own layers do so).
    Layers of another kind (a state, a sliding window) are copied.
    """
    twin = copy.copy(cache)
    shared = (DynamicLayer, ForgettingLayer)
    twin.layers = [copy.copy(layer) if type(layer) in shared else copy.deepcopy(layer) for layer in cache.layers]
    request, trace = request_on(cache, empty=True), trace_of(cache)
    if request is not None:
        vars(request).pop("report", None)
        remember(twin, copy.copy(request))
    if trace is not None:
        put_trace(twin, copy.copy(trace))
    return twin


def release(cache: Cache | None) -> None:
    """Make a cache that was reset an ordinary one again."""
    if cache is not None and hasattr(cache, REQUEST) and int(cache.get_seq_length()) == 0:
        delattr(cache, REQUEST)
        drop_trace(cache)


def refuse_torn(cache: Cache) -> None:
    """A pass that was interrupted has left some layers longer than others."""
    lengths = {int(layer.get_seq_length()) for layer in cache.layers if isinstance(layer, DynamicLayer)}
    if len(lengths) > 1:
        raise ValueError(
            f"this cache was left by an interrupted pass, its layers hold {min(lengths)} to {max(lengths)} tokens: "
            "start with a new cache"
        )


def refuse_lost_entries(cache: Cache) -> None:
    """Only the second stage's hooks can read a cache that has forgotten."""
    trace = trace_of(cache)
    if trace is not None and any(bool(row.any()) for row in trace.forgotten.values()):
        raise ValueError(
            "this cache has forgotten visual entries: continue with the second stage on, or start with a new cache"
        )


def refuse_new_video(cache: Cache) -> None:
    """A video can only be pruned into an empty cache."""
    if int(cache.get_seq_length()) > 0:
        raise ValueError(
            "a new video in a later turn cannot be pruned into a cache that already holds "
            f"{int(cache.get_seq_length())} tokens: start with a new cache and the whole conversation"
        )
