"""A tower's own forward as a packed pass: one attention function, hooks that cut and spread, nothing that stays.

The pass lies in a context variable, so threads that run the same tower at once do not see each other's: hooks and the
attention function do nothing in a pass that is not theirs. No layer is written anew.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..models.tower import Tower
from .packed import Batch, Packed, Segments

PREFIX = "sharpv_"
VARLEN = find_spec("torch.nn.attention.varlen") is not None
LENGTHS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


@dataclass(eq=False)
class Pass:
    """One pass through a tower.

    Attributes:
        encoded: ``(T, N)`` bool on the host, which patches are encoded, as the tower holds them.
        windows: as of :class:`Packed`.
        packed: the map, once the tower's places are known.
        now: what attends together in the layer that runs.
    """

    encoded: Tensor
    windows: list[int] | None = None
    packed: Packed = field(init=False)
    now: Segments = field(init=False)

    def enter(self, hidden: Tensor) -> Tensor:
        """Cut the states that reach the first layer."""
        leading = hidden.shape[1] - self.encoded.shape[1] if hidden.ndim == 3 else 0
        self.packed = Packed(self.encoded, leading, self.windows, hidden.device)
        return self.packed.cut(hidden)


RUNNING: ContextVar[Pass | None] = ContextVar("sharpv_pass", default=None)
_LOCK = threading.Lock()
_USERS: dict[int, int] = {}
"""How many passes have each configuration's attention switched, by its id."""


@contextmanager
def packed_pass(model: PreTrainedModel, tower: Tower, encoded: Tensor, grid: tuple[int, int]) -> Iterator[None]:
    """The tower encodes only some patches of one video while this lasts, in this thread.

    Args:
        encoded: ``(T, N)`` bool on the host, in the order of the processor's patches.
        grid: rows and columns of a frame's patches.

    Raises:
        ValueError: a tower that is compiled.
    """
    module, (layers, taps) = tower.module(model), tower.parts(model)
    if any(getattr(each, "_compiled_call_impl", None) is not None for each in (module, *layers)):
        raise ValueError(
            "the vision tower is compiled, and encode= changes what runs in it: compile the language model"
        )
    full = set(range(len(layers)))
    one = Pass(encoded)
    if tower.windows:
        order, windows = _windows(module, grid)
        one = Pass(encoded[:, order], windows)
        full = set(module.fullatt_block_indexes)  # type: ignore[arg-type]

    def before(
        index: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if RUNNING.get() is not one:
            return None
        if index == 0:
            args = (one.enter(args[0]), *args[1:])
        one.now = one.packed.by_frame if index in full else one.packed.by_window
        return args, _of_rows(one.packed, kwargs)

    def spread(output: Any) -> Any:
        if RUNNING.get() is not one:
            return None
        return (one.packed.spread(output[0]), *output[1:]) if isinstance(output, tuple) else one.packed.spread(output)

    def spread_recorded(output: Any) -> None:
        states = getattr(output, "hidden_states", None)
        if RUNNING.get() is one and states is not None:  # only those that were asked for are there
            output.hidden_states = tuple(None if each is None else one.packed.spread(each) for each in states)

    def tapped(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if RUNNING.get() is not one else (one.packed.spread(args[0]), *args[1:])

    with ExitStack() as stack:
        configs = {
            id(each.config): each.config for layer in layers for each in layer.modules() if hasattr(each, "config")
        }
        for config in configs.values():
            stack.enter_context(_switched(config))
        with _LOCK:  # torch numbers hooks without one
            handles = [
                *(
                    layer.register_forward_pre_hook(
                        lambda _, args, kwargs=None, index=index: before(index, args, kwargs), with_kwargs=True
                    )
                    for index, layer in enumerate(layers)
                ),
                layers[-1].register_forward_hook(lambda _, __, output: spread(output)),
                *(tap.register_forward_pre_hook(lambda _, args: tapped(args)) for tap in taps),
                module.register_forward_hook(lambda _, __, output: spread_recorded(output)),
            ]
        for handle in handles:
            stack.callback(handle.remove)
        token = RUNNING.set(one)
        stack.callback(RUNNING.reset, token)
        yield


def _of_rows(packed: Packed, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a layer is told of all places, for the packed rows."""
    kwargs = dict(kwargs)
    if kwargs.get("position_embeddings") is not None:
        kwargs["position_embeddings"] = tuple(
            each.index_select(-2, packed.rows) for each in kwargs["position_embeddings"]
        )
    if kwargs.get("cu_seqlens") is not None:
        kwargs["cu_seqlens"] = kwargs["cu_seqlens"].new_tensor([0, len(packed.rows)])
    if kwargs.get("max_seqlen") is not None:
        kwargs["max_seqlen"] = len(packed.rows)
    return kwargs


def _windows(tower: nn.Module, grid: tuple[int, int]) -> tuple[Tensor, list[int]]:
    """The order of a frame's patches by window, and the windows' lengths."""
    from transformers.vision_utils import get_vision_window_index

    merge = int(tower.spatial_merge_size)  # type: ignore[arg-type]
    units, ends = get_vision_window_index(
        torch.tensor([[1, *grid]]),
        spatial_merge_size=merge,
        window_size=int(tower.window_size),  # type: ignore[arg-type]
        patch_size=int(tower.patch_size),  # type: ignore[arg-type]
    )
    order = (units[:, None] * merge**2 + torch.arange(merge**2)).flatten()
    return order, ends.diff().tolist()


# -- attention ---------------------------------------------------------------------------------------------------------


@contextmanager
def _switched(config: Any) -> Iterator[None]:
    """The configuration names our attention function while any pass lasts."""
    with _LOCK:
        name = str(config._attn_implementation or "eager").removeprefix(PREFIX)
        AttentionInterface.register(PREFIX + name, attend)
        if name in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(PREFIX + name, ALL_MASK_ATTENTION_FUNCTIONS[name])
        config._attn_implementation = PREFIX + name
        _USERS[id(config)] = _USERS.get(id(config), 0) + 1
    try:
        yield
    finally:
        with _LOCK:
            _USERS[id(config)] -= 1
            if not _USERS[id(config)]:
                del _USERS[id(config)]
                config._attn_implementation = name


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The attention function of a tower, ``(1, heads, R, d)`` packed rows: that of its own choice, by segment."""
    current = RUNNING.get()
    name = str(module.config._attn_implementation).removeprefix(PREFIX)  # type: ignore[union-attr]
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    own = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)
    if "flash" in name:
        module = _as_before(module, name)
    if current is None:
        return own(module, query, key, value, attention_mask, **kwargs)
    for length in LENGTHS:
        kwargs.pop(length, None)
    segments = current.now
    if "flash" in name:
        if attention_mask is not None:
            raise ValueError("encode= with FlashAttention takes no padded pictures: use sdpa in the vision tower")
        keys, values = (each.index_select(2, segments.keys) for each in (key, value))
        bounds = (segments.query_ends, segments.key_ends, *segments.most)
        return own(module, query, keys, values, None, **kwargs, **dict(zip(LENGTHS, bounds, strict=True)))
    if name == "sdpa" and attention_mask is None and query.is_cuda and query.element_size() == 2 and VARLEN:
        return _varlen(query, key, value, segments, kwargs.get("scaling")), None
    outputs = [
        own(
            module,
            *(
                each[0].transpose(0, 1)[rows].transpose(1, 2)
                for each, rows in ((query, batch.queries), (key, batch.keys), (value, batch.keys))
            ),
            _masked(attention_mask, batch),
            **kwargs,
        )[0].flatten(0, 1)
        for batch in segments.batches
    ]
    return torch.cat(outputs).index_select(0, segments.back)[None], None


def _masked(mask: Tensor | None, batch: Batch) -> Tensor | None:
    """A mask over all places ``(T, 1, queries or 1, keys)`` for the segments of a batch, which are whole frames."""
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
    twin, config = copy.copy(module), copy.copy(module.config)
    config._attn_implementation = name  # type: ignore[union-attr]
    twin.config = config
    return twin
