"""A layer's own attention, run again on the last few queries of a prompt: O(n d), whatever kernel computes the rest."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from .cache import CACHE, StoredKeys
from .masks import as_read_by


def attend_again(
    attention: nn.Module,
    given: dict[str, Any],
    keys: Tensor,
    values: Tensor,
    visible: Tensor,
    rows: int,
    past: int = 0,
) -> Tensor:
    """What a layer's attention returns for its last ``rows`` queries when they see only themselves and ``visible``.

    Args:
        given: the keyword arguments of the module's own call over the prompt of N tokens, or over those after ``past``.
        keys, values: ``(B, heads, N, head_dim)`` as stored.
        visible: ``(B, N)`` bool.

    Returns:
        ``(B, rows, D)``.
    """
    output: Tensor = _again(attention, given, keys, values, visible, rows, past)[0]
    return output


def last_row(attention: nn.Module, given: dict[str, Any], keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    """Attention weights of the last query, mean over heads, ``(B, N)``; arguments as :func:`attend_again`.

    Fused kernels keep no weights, so this one row is computed by transformers' eager function.
    """
    weights: Tensor = _again(_eager(attention), given, keys, values, visible, 1, 0)[1]
    return weights[:, :, 0].float().mean(dim=1)


def _eager(attention: nn.Module) -> nn.Module:
    """The same layer with eager attention, its weights shared: other threads read the model's own config."""
    twin = copy.copy(attention)
    config = copy.copy(cast(Any, attention).config)
    config._attn_implementation = "eager"
    vars(twin)["config"] = config
    vars(twin).pop("forward", None)  # accelerate's is bound to the original
    return twin


def _again(
    attention: nn.Module,
    given: dict[str, Any],
    keys: Tensor,
    values: Tensor,
    visible: Tensor,
    rows: int,
    past: int,
) -> Any:
    hidden, length = given["hidden_states"], keys.shape[2]
    last = slice(length - rows - past, length - past)
    own = torch.eye(rows, length, dtype=torch.bool, device=keys.device).roll(length - rows, dims=1)
    causal = torch.ones_like(own).tril(length - rows)
    mask = (visible[:, None, None, :] & causal) | own
    implementation = cast(Any, attention).config._attn_implementation
    mask = as_read_by(implementation, mask, visible | own.any(dim=0), hidden.dtype)
    again = {
        **given,
        "hidden_states": hidden[:, last],
        "position_embeddings": tuple(part[..., last, :] for part in given["position_embeddings"]),
        "attention_mask": mask,
        CACHE: StoredKeys(keys, values),
    }
    for name in ("position_ids", "cache_position"):
        if again.get(name) is not None:
            again[name] = again[name][..., last]
    with torch.no_grad():
        return attention(**again)
