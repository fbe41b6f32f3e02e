"""Masks and columns, each rule once: how attention implementations want a mask, and kept columns moved to the right."""

from __future__ import annotations

import torch
from torch import Tensor


def kept_columns(keep: Tensor, width: int) -> Tensor:
    """Columns of the shorter sequence, ``(B, L)`` bool ``-> (B, width)``: the kept ones in order, on the right."""
    return keep.long().argsort(dim=1, stable=True)[:, -width:]


def as_read_by(attention: str, seen: Tensor, columns: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as an attention implementation takes it.

    Args:
        attention: its name. Flash attention takes ``columns``, being causal by itself; eager adds a float mask; the
            others read ``seen``.
        seen: ``(B, 1, q, K)`` bool, which columns each query may look at.
        columns: ``(B, K)`` bool, which columns are there.
        dtype: of an additive mask.
    """
    if attention.startswith("flash"):
        return columns
    if attention != "eager":
        return seen
    zeros = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return zeros.masked_fill(~seen, torch.finfo(dtype).min)
