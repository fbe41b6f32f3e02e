"""A tower's attention by segments of a packed sequence: what the model would have run, on what stands at each place.

The function is registered with transformers under the name of the one that it stands for, behind a prefix. In a thread
without a packed pass it only passes on.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .packed import Batch, Segments

PREFIX = "sharpv_"
VARLEN = find_spec("torch.nn.attention.varlen") is not None
LENGTHS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")

SEGMENTS: ContextVar[Segments | None] = ContextVar("sharpv_segments", default=None)
"""What attends together in the layer that runs, in this thread."""
LOCK = threading.Lock()
USERS: dict[int, int] = {}
"""How many passes have each configuration's attention switched, by its id."""


@contextmanager
def switched(config: Any) -> Iterator[None]:
    """The configuration of a tower names our attention function while any pass lasts."""
    with LOCK:
        name = str(config._attn_implementation or "eager").removeprefix(PREFIX)
        AttentionInterface.register(PREFIX + name, attend)
        if name in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(PREFIX + name, ALL_MASK_ATTENTION_FUNCTIONS[name])
        config._attn_implementation = PREFIX + name
        USERS[id(config)] = USERS.get(id(config), 0) + 1
    try:
        yield
    finally:
        with LOCK:
            USERS[id(config)] -= 1
            if not USERS[id(config)]:
                del USERS[id(config)]
                config._attn_implementation = name


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """As transformers' attention functions; ``(1, heads, R, d)`` packed rows give ``(1, R, heads, d)``.

    Args:
        attention_mask: None, or over all places of all frames, ``(T, 1, queries or 1, keys)``.
    """
    segments = SEGMENTS.get()
    name = str(cast(Any, module.config)._attn_implementation).removeprefix(PREFIX)
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    own = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)
    if "flash" in name:
        module = _as_before(module, name)
    if segments is None:
        return own(module, query, key, value, attention_mask, **kwargs)
    for length in LENGTHS:
        kwargs.pop(length, None)
    if "flash" in name:
        if attention_mask is not None:
            raise ValueError("encode= with FlashAttention takes no padded pictures: use sdpa in the vision tower")
        keys, values = (each.index_select(2, segments.keys) for each in (key, value))
        bounds = (segments.query_ends, segments.key_ends, *segments.most)
        return own(module, query, keys, values, None, **kwargs, **dict(zip(LENGTHS, bounds, strict=True)))
    if VARLEN and name == "sdpa" and attention_mask is None and query.is_cuda and query.element_size() == 2:
        return _varlen(query, key, value, segments, kwargs.get("scaling")), None
    outputs = [
        own(
            module,
            _gathered(query, batch.queries),
            _gathered(key, batch.keys),
            _gathered(value, batch.keys),
            _masked(attention_mask, batch),
            **kwargs,
        )[0].flatten(0, 1)
        for batch in segments.batches
    ]
    return torch.cat(outputs).index_select(0, segments.back)[None], None


def _gathered(states: Tensor, rows: Tensor) -> Tensor:
    """``(1, heads, R, d)`` at rows ``(G, n)`` as ``(G, heads, n, d)``."""
    return states[0].transpose(0, 1)[rows].transpose(1, 2)


def _masked(mask: Tensor | None, batch: Batch) -> Tensor | None:
    """A mask over all places for the segments of a batch, which are whole frames."""
    if mask is None:
        return None
    mask = mask[batch.numbers]
    if mask.shape[2] == 1:
        return mask
    return mask.gather(2, batch.places[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3]))


def _varlen(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float | None) -> Tensor:
    """All segments in one call of PyTorch's own kernel for sequences of different lengths."""
    from torch.nn.attention.varlen import varlen_attn

    queries, keys, values = (each[0].transpose(0, 1) for each in (query, key, value))
    out = varlen_attn(
        queries, keys.index_select(0, segments.keys), values.index_select(0, segments.keys),
        segments.query_ends, segments.key_ends, *segments.most, scale=scaling,
    )  # fmt: skip
    return cast(Tensor, out)[None]


def _as_before(module: nn.Module, name: str) -> nn.Module:
    """The module with the configuration that FlashAttention looks into for its own name."""
    twin, config = copy.copy(module), copy.copy(cast(Any, module.config))
    config._attn_implementation = name
    twin.config = config
    return twin
