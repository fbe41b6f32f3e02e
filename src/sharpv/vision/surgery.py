"""A tower's own forward as a packed pass: hooks that cut and spread, and nothing that stays.

The pass lies in a context variable, so threads that run the same tower at once do not see each other's: hooks do
nothing in a pass that is not theirs. No layer is written anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from ..models.tower import Tower
from .attention import LOCK, SEGMENTS, switched
from .packed import Packed

RUNNING: ContextVar[Pass | None] = ContextVar("sharpv_pass", default=None)


@contextmanager
def packed_pass(model: PreTrainedModel, tower: Tower, encoded: Tensor, grid: tuple[int, int]) -> Iterator[None]:
    """The tower encodes only some patches of one video while this lasts, in this thread.

    Args:
        encoded: ``(T, N)`` bool on the host, in the order of the processor's patches.
        grid: rows and columns of a frame's patches.

    Raises:
        ValueError: a tower that is compiled in place, or trained with gradient checkpointing.
    """
    module, (layers, taps) = tower.module(model), tower.parts(model)
    if any(getattr(each, "_compiled_call_impl", None) is not None for each in (module, *layers)):
        raise ValueError(
            "the vision tower is compiled, and encode= changes what runs in it: compile the language model"
        )
    if torch.is_grad_enabled() and any(
        each.training and getattr(each, "gradient_checkpointing", False) for each in layers
    ):
        raise ValueError(
            "gradient checkpointing runs the vision tower's layers again without what encode= does to them: "
            "use encode='all', or turn it off"
        )
    windows, full = None, set(range(len(layers)))
    if tower.windows:
        order, windows = windows_of(module, grid)
        encoded, full = encoded[:, order], set(cast(Any, module.fullatt_block_indexes))
    one = Pass(encoded, windows, full)
    parts = [part for layer in layers for part in layer.modules() if hasattr(part, "config")]
    with ExitStack() as stack:
        for config in {id(part.config): part.config for part in parts}.values():
            stack.enter_context(switched(config))
        with LOCK:  # torch numbers hooks without one
            handles = one.hooks(module, layers, taps)
        for handle in handles:
            stack.callback(handle.remove)
        stack.callback(SEGMENTS.reset, SEGMENTS.set(None))
        stack.callback(RUNNING.reset, RUNNING.set(one))
        yield


class Pass:
    """One pass through a tower.

    Args:
        encoded: ``(T, N)`` bool on the host, which patches are encoded, as the tower holds them.
        windows: as of :class:`Packed`.
        full: the layers in which every frame attends as a whole.
    """

    packed: Packed

    def __init__(self, encoded: Tensor, windows: list[int] | None, full: set[int]) -> None:
        self.encoded, self.windows, self.full = encoded, windows, full

    def hooks(self, tower: nn.Module, layers: list[nn.Module], taps: list[nn.Module]) -> list[RemovableHandle]:
        """Hook a tower's layers, what reads between them, and its end."""
        return [
            *(
                layer.register_forward_pre_hook(partial(self._before_layer, index), with_kwargs=True)
                for index, layer in enumerate(layers)
            ),
            layers[-1].register_forward_hook(self._after_layers),
            *(tap.register_forward_pre_hook(self._before_tap) for tap in taps),
            tower.register_forward_hook(self._after_tower),
        ]

    @property
    def _mine(self) -> bool:
        return RUNNING.get() is self

    def _before_layer(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        # another thread's hook may be called without kwargs while it is taken off
        if not self._mine or kwargs is None:
            return None
        if index == 0:
            hidden = args[0]
            leading = hidden.shape[1] - self.encoded.shape[1] if hidden.ndim == 3 else 0
            self.packed = Packed(self.encoded, leading, self.windows, hidden.device)
            args = (self.packed.cut(hidden), *args[1:])
        SEGMENTS.set(self.packed.by_frame if index in self.full else self.packed.by_window)
        return args, _of_rows(self.packed, kwargs)

    def _after_layers(self, module: nn.Module, args: Any, output: Any) -> Any:
        if not self._mine:
            return None
        return (self.packed.spread(output[0]), *output[1:]) if isinstance(output, tuple) else self.packed.spread(output)

    def _before_tap(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (self.packed.spread(args[0]), *args[1:]) if self._mine else None

    def _after_tower(self, module: nn.Module, args: Any, output: Any) -> None:
        states = getattr(output, "hidden_states", None)
        if self._mine and states is not None:  # only those that were asked for are there
            output.hidden_states = tuple(None if each is None else self.packed.spread(each) for each in states)


def windows_of(tower: nn.Module, grid: tuple[int, int]) -> tuple[Tensor, list[int]]:
    """The order of a frame's patches by window, and the windows' lengths."""
    from transformers.vision_utils import get_vision_window_index

    known = cast(Any, tower)
    units, ends = get_vision_window_index(
        torch.tensor([[1, *grid]]), known.spatial_merge_size, known.window_size, known.patch_size
    )
    order = (units[:, None] * known.spatial_merge_unit + torch.arange(known.spatial_merge_unit)).flatten()
    return order, ends.diff().tolist()


def _of_rows(packed: Packed, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a layer is told of all places, for the packed rows."""
    kwargs = dict(kwargs)
    if kwargs.get("position_embeddings") is not None:
        tables = kwargs["position_embeddings"]
        kwargs["position_embeddings"] = tuple(table.index_select(-2, packed.rows) for table in tables)
    if kwargs.get("cu_seqlens") is not None:
        kwargs["cu_seqlens"] = kwargs["cu_seqlens"].new_tensor([0, len(packed.rows)])
    if kwargs.get("max_seqlen") is not None:
        kwargs["max_seqlen"] = len(packed.rows)
    return kwargs
