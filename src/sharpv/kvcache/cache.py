"""Caches of keys and values: one whose layers can forget, and what any of them weighs.

The only file that knows how transformers' cache classes work inside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer
from transformers.utils import ModelOutput

from .masks import as_read_by, kept_columns

OLD_CACHE = "past_key_values"
CACHE = "cache" if hasattr(ModelOutput, OLD_CACHE) else OLD_CACHE
"""What ``generate``, ``forward``, decoder layers and their outputs call the cache: transformers 5.24 renamed it, and
lets its outputs answer to the old name."""


class ForgettingLayer(DynamicLayer):
    """A cache layer with a logical length: to the model it is as long as the sequence, but it may store less.

    It stores some of its first ``described`` logical columns and all that came later: ``columns[b, p]`` is the logical
    column of stored column p in row b, or -1 where a row stores fewer entries than the longest row of the batch (rows
    are aligned to the right). None means that nothing has been forgotten.
    """

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.columns: Tensor | None = None
        self.described = self.prompt_length = 0
        self.ragged = False

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.length += key_states.shape[-2]
        return super().update(key_states, value_states, *args, **kwargs)

    def get_seq_length(self) -> int:
        return self.length

    def forget(self, entries: Tensor, fewest: int, most: int) -> None:
        """Drop the prompt's ``entries``, ``(B, prompt_length)`` bool, for good.

        ``fewest`` and ``most`` are how many that is in a row of the batch: to look would stop the host.
        """
        if most == 0:
            return
        longest = self.length - fewest
        unchecked = entries.new_zeros(len(entries), self.length - entries.shape[1])
        keep = ~torch.cat([entries, unchecked], dim=1)
        columns = kept_columns(keep, longest)
        gather = columns[:, None, :, None].expand(-1, self.keys.shape[1], -1, self.keys.shape[3])
        self.keys = self.keys.gather(2, gather)
        gather = columns[:, None, :, None].expand(-1, self.values.shape[1], -1, self.values.shape[3])
        self.values = self.values.gather(2, gather)
        self.columns = columns.masked_fill(~keep.gather(1, columns), -1)
        self.described, self.prompt_length = self.length, entries.shape[1]
        self.ragged = fewest < most

    def hold(self, columns: Tensor, real: Tensor, length: int, ragged: bool) -> None:
        """Say which of the prompt's ``length`` columns the stored ones are, where a layer was given only those.

        ``columns`` ``(B, stored)``; ``real`` False where a column only fills up its row, which ``ragged`` says of any.
        """
        self.columns = columns.masked_fill(~real, -1)
        self.length = self.described = self.prompt_length = length
        self.ragged = ragged

    def narrow(self, mask: Tensor | None, new: int, attention: str, dtype: torch.dtype) -> Tensor | None:
        """An attention mask made for the logical length, cut down to the columns that will be stored.

        Args:
            mask: None, ``(B, K)`` (flash attention), or ``(B or 1, 1, q, K)`` bool or additive float.
            new: tokens about to be added.
            attention: the model's attention implementation, which decides what a missing mask must become.
            dtype: of an additive mask that has to be made.
        """
        if self.columns is None or (mask is None and not self.ragged):
            return mask
        later = self.length + new - self.described
        stored = functional.pad(self.columns >= 0, (0, later), value=True)
        if mask is None:
            return as_read_by(attention, stored[:, None, None, :].expand(-1, 1, new, -1), stored, dtype)
        mask = mask.expand(len(stored), *mask.shape[1:])
        if mask.ndim == 4:
            stored = stored[:, None, None, :]
        columns = self.columns.clamp(min=0).view(len(stored), *[1] * (mask.ndim - 2), -1)
        described = mask[..., : self.described].gather(-1, columns.expand(*mask.shape[:-1], -1))
        mask = torch.cat([described, mask[..., self.described :]], dim=-1)
        if mask.is_floating_point():
            return mask.masked_fill(~stored, torch.finfo(mask.dtype).min)
        return mask & stored

    def crop(self, tokens_to_remove: int) -> None:
        if self.columns is not None and self.length - abs(tokens_to_remove) < self.prompt_length:
            raise ValueError(
                f"cannot crop {abs(tokens_to_remove)} of {self.length} tokens: the visual entries of the prompt's "
                f"{self.prompt_length} tokens are forgotten and cannot be read again"
            )
        super().crop(tokens_to_remove)
        if self.is_initialized:
            self.length -= abs(tokens_to_remove)
            if self.columns is not None and self.length < self.described:
                self.columns = self.columns[:, : self.length - self.described]
                self.described = self.length

    def reset(self) -> None:
        super().reset()
        self.length, self.columns, self.described, self.prompt_length, self.ragged = 0, None, 0, 0, False

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


class StoredKeys:
    """Stands in for a cache and adds nothing: attention that is run again reads what a layer has stored."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.stored = keys, values

    def update(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self.stored


def take_cache(kwargs: dict[str, Any]) -> Any:
    """The cache among keyword arguments, whose old name is replaced by this transformers' own."""
    if OLD_CACHE in kwargs:
        kwargs.setdefault(CACHE, kwargs.pop(OLD_CACHE))
    return kwargs.get(CACHE)


def new_cache(config: PreTrainedConfig) -> DynamicCache:
    """The cache that ``generate`` would make for this model."""
    return DynamicCache(config=config.get_text_config(decoder=True))


def rows_of(cache: Cache) -> int | None:
    """How many sequences a cache holds; None before anything is stored, or where its layers do not tell."""
    for layer in cache.layers:
        if isinstance(getattr(layer, "keys", None), Tensor) and layer.keys.ndim == 4:
            return len(layer.keys)
    return None


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
