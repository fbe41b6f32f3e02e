"""Visual tokens leave the language model at a layer: what a :class:`.base.Withdrawal` decides is done here, by hooks.

From that layer on, prefill runs on the shorter sequence: hidden states, positions and masks are gathered, and the cache
layers know which of the prompt's columns they hold, so that decoding sees the prompt's length everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Cache, PreTrainedModel

from .attention import last_row
from .base import Withdrawal
from .cache import ForgettingLayer
from .masks import as_read_by, kept_columns
from .memory import MemoryTrace, hidden_of, hide_forgotten, hooked, of_rows, on_prepared, require_prefill


@dataclass(frozen=True)
class Shorter:
    """The columns of a prompt that go on, ``(B, n)``; they are gathered from what layers are given."""

    columns: Tensor
    real: Tensor
    """False where a column only fills up its row."""
    ragged: bool

    def tokens(self, part: Tensor) -> Tensor:
        """``(B, N, D) -> (B, n, D)``, also with more dimensions before, and with a batch of 1 for all."""
        lead, (_, length, width) = part.shape[:-3], part.shape[-3:]
        batch, shorter = self.columns.shape
        index = self.columns[..., None].expand(*lead, batch, shorter, width)
        return part.expand(*lead, batch, length, width).gather(-2, index)

    def places(self, part: Tensor) -> Tensor:
        """``(B, N) -> (B, n)``, likewise."""
        return self.tokens(part[..., None])[..., 0]

    def mask(self, mask: Tensor | None, attention: str, dtype: torch.dtype) -> Tensor | None:
        """The attention mask of the shorter sequence, of the same kind as that of the whole: None means causal."""
        batch, shorter = self.columns.shape
        if mask is not None and mask.ndim == 2:
            return self.places(mask).bool() & self.real
        own = torch.eye(shorter, dtype=torch.bool, device=self.columns.device)
        if mask is None:
            if not self.ragged:
                return None
            seen = torch.ones_like(own).tril() & self.real[:, None, None, :]
        else:
            rows = self.columns[:, None, :, None].expand(batch, mask.shape[1], shorter, mask.shape[3])
            chosen = mask.expand(batch, -1, -1, -1).gather(2, rows)
            seen = chosen.gather(3, self.columns[:, None, None, :].expand(-1, mask.shape[1], shorter, -1))
            seen = (seen if seen.dtype == torch.bool else seen == 0) & self.real[:, None, None, :]
        seen = seen | own  # a row that fills up sees itself, or softmax has nothing
        return as_read_by(attention, seen, self.real, dtype)


class WithdrawalStage:
    """Hooks on the decoder layers. They act only on caches prepared by :func:`.memory.enable_forgetting`."""

    def __init__(self, rule: Withdrawal) -> None:
        self.rule = rule

    def attach(self, model: PreTrainedModel) -> list[RemovableHandle]:
        """Put the hooks on.

        Raises:
            ValueError: a layer that the model lacks or reads visual features in, or layers that keep a state.
        """
        layers, first = model.get_decoder().layers, self.rule.layer
        deep = getattr(getattr(model.config, "vision_config", None), "deepstack_visual_indexes", None) or ()
        if not len(deep) <= first < len(layers):
            raise ValueError(
                f"{self.rule.name} can drop tokens before the layers {max(len(deep), 1)} to {len(layers) - 1} of "
                f"this model, got layer={first}"
            )
        if not all(isinstance(getattr(layer, "self_attn", None), nn.Module) for layer in layers):
            raise ValueError(f"{self.rule.name} needs attention in every layer: some of this model's keep a state")
        handles = hooked(layers, self.before, self.after)
        if self.rule.reads_attention:
            look = layers[first - 1].self_attn.register_forward_hook(
                partial(on_prepared, self.look, first - 1), with_kwargs=True
            )
            handles.append(look)
        return handles

    def before(
        self, index: int, cache: Cache, trace: MemoryTrace, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, Any] | None:
        """At prefill, from the rule's layer on: only what goes on. Later: a mask that fits what is stored."""
        hidden = hidden_of(args, kwargs)
        if index == 0 and trace.awaited:
            require_prefill(hidden, kwargs.get("attention_mask"), trace)
        if not trace.awaited:
            return hide_forgotten(cache.layers[index], module, args, kwargs)
        if index < self.rule.layer:
            return None
        if index == self.rule.layer:
            trace.shorter = self._choose(trace, hidden)
            hidden = trace.shorter.tokens(hidden)
        shorter: Shorter = trace.shorter
        attention: Any = module.self_attn
        given = {
            **kwargs,
            "hidden_states": hidden,
            "attention_mask": shorter.mask(
                kwargs.get("attention_mask"), attention.config._attn_implementation, hidden.dtype
            ),
            "position_embeddings": tuple(shorter.tokens(part) for part in kwargs["position_embeddings"]),
        }
        if given.get("position_ids") is not None:
            given["position_ids"] = shorter.places(given["position_ids"])
        if given.get("cache_position") is not None:
            given["cache_position"] = given["cache_position"][: hidden.shape[1]]
        return args[1:], given

    def look(
        self,
        index: int,
        cache: Cache,
        trace: MemoryTrace,
        module: nn.Module,
        args: Any,
        kwargs: dict[str, Any],
        output: Any,
    ) -> None:
        """At prefill, in the layer before: the last prompt token's attention."""
        if not trace.awaited:
            return
        layer = cache.layers[index]
        valid = of_rows(trace.valid, layer.keys)
        trace.weights = last_row(module, kwargs, layer.keys, layer.values, valid)

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
        """At prefill: the layer's cache learns which columns it holds."""
        if not trace.awaited:
            return
        shorter: Shorter | None = trace.shorter
        if shorter is not None:
            layer = cache.layers[index]
            assert isinstance(layer, ForgettingLayer)
            layer.hold(shorter.columns, shorter.real, trace.visual.shape[1], shorter.ragged)
            repeats = len(shorter.columns) // len(trace.visual)
            visual = of_rows(trace.visual, shorter.columns)
            left = (visual.gather(1, shorter.columns) & shorter.real).sum(dim=1)
            trace.withdrawn[index] = trace.visual.sum(dim=1).to(left.device) - left[::repeats]
        if index == len(cache.layers) - 1:
            trace.awaited, trace.shorter, trace.weights = False, None, None

    def _choose(self, trace: MemoryTrace, hidden: Tensor) -> Shorter:
        visual, valid = of_rows(trace.visual, hidden), of_rows(trace.valid, hidden)
        weights = None if trace.weights is None else trace.weights.to(hidden.device)
        keep = valid & (~visual | self.rule.stays(visual, weights))
        shortest, longest = torch.stack(keep.sum(dim=1).aminmax()).tolist()  # the one host synchronisation
        columns = kept_columns(keep, longest)
        return Shorter(columns, keep.gather(1, columns), shortest < longest)
