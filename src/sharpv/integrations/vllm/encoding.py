"""Towers of vLLM that encode only some places, all frames of all videos of a batch in one packed pass.

The map is the library's (``vision/packed.py``). A place is what a tower takes as one: a merged token's patches on Qwen,
a patch on SigLIP. No forward is written anew: Qwen's towers take tables that are cut here, SigLIP's has hooks that cut
and spread; and vLLM's own encoder attention is stood in for while a pass lasts. Nothing stays on the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.attention.mm_encoder_attention import MMEncoderAttention
from vllm.v1.attention.backends.registry import AttentionBackendEnum
from vllm.v1.attention.ops.vit_attn_wrappers import apply_sdpa

from ...vision.packed import Packed, Segments, segments, standing

BACKENDS = (AttentionBackendEnum.FLASH_ATTN, AttentionBackendEnum.TORCH_SDPA)
"""Those that take other lengths of queries than of keys."""


def require(tower: nn.Module) -> None:
    """Refuse, with a ValueError, a tower whose attention takes no fewer queries than keys."""
    for layer in _attentions(tower):
        if layer.attn_backend not in BACKENDS or layer.fp8_enabled:
            known = " or ".join(each.name for each in BACKENDS)
            found = "FP8" if layer.fp8_enabled else layer.attn_backend.name
            raise ValueError(f"sharpv's encode needs --mm-encoder-attn-backend {known}, and this tower has {found}")


def some(encoded: Sequence[Tensor] | None) -> bool:
    """Whether any place of a batch's videos is left out; where none is, vLLM's own pass runs."""
    return encoded is not None and not all(bool(each.all()) for each in encoded)


def encode_patches(tower: Any, pixels: Tensor, grids: list[list[int]], encoded: Sequence[Tensor]) -> Tensor:
    """Merged features of all tokens of a batch of videos, by a tower of Qwen's.

    The pixels are cut to what is encoded, the tables that the tower prepares are cut in the same way, and the order of
    its windows is followed before it, so that it has none to follow.

    Args:
        tower: vLLM's.
        pixels: ``(patches, values)``.
        grids: time, rows and columns of each video's patches.
        encoded: of each video ``(T, N)`` bool on the host, N tokens a frame.

    Returns:
        ``(tokens, D)``.
    """
    unit, device = tower.spatial_merge_size**2, tower.device
    tables = dict(tower.prepare_encoder_metadata(grids))
    flat = torch.cat([each.flatten() for each in encoded])
    starts = accumulate((each.numel() for each in encoded), initial=0)
    stands = torch.cat([standing(each) + start for each, start in zip(encoded, starts, strict=False)])

    order = torch.arange(len(flat))  # in which the tower goes through the tokens
    if "window_index" in tables:
        order = tables["window_index"].cpu()
    here = flat[order]
    rows = order[here]
    row_of = torch.empty_like(order).index_put_((rows,), torch.arange(len(rows)))

    of_patches, source = here.repeat_interleave(unit), _patches(row_of[stands[order]], unit)
    cut = of_patches.nonzero().flatten().to(device)
    for name, table in tables.items():
        if name in ("cu_seqlens", "cu_window_seqlens"):
            tables[name] = segments(of_patches, source, table.cpu().long().diff(), device)
        elif name in ("rotary_pos_emb_cos", "rotary_pos_emb_sin", "pos_embeds"):
            tables[name] = table[cut]
        elif name in ("window_index", "reverse_indices"):
            tables[name] = torch.arange(len(rows), device=device)
    with _attending(tower):
        taken = pixels.unflatten(0, (-1, unit))[rows.to(pixels.device)].flatten(0, 1)
        out: Tensor = tower(taken, grids, encoder_metadata=tables)
    return out[row_of[stands].to(device)]


@contextmanager
def encoding_pictures(tower: Any, encoded: Sequence[Tensor] | None) -> Iterator[None]:
    """A SigLIP tower encodes so much of the next pictures that it is given, the frames of a batch of videos.

    Args:
        tower: vLLM's.
        encoded: of each video ``(T, N)`` bool on the host, N patches a frame; None: all.
    """
    if encoded is None or not some(encoded):
        yield
        return
    packed = Packed(torch.cat(list(encoded)), device=tower.device)  # each video's first frame is whole
    layers = tower.vision_model.encoder.layers
    handles = [
        layers[0].register_forward_pre_hook(lambda _, args: (packed.cut(args[0]), *args[1:])),
        layers[-1].register_forward_hook(lambda _, __, output: (packed.spread(output[0]), *output[1:])),
    ]
    try:
        with _attending(tower, packed.by_frame):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _attentions(tower: nn.Module) -> list[Any]:
    return [layer for layer in tower.modules() if isinstance(layer, MMEncoderAttention)]


@contextmanager
def _attending(tower: nn.Module, given: Segments | None = None) -> Iterator[None]:
    """The tower's attentions read these segments, or those that they are given in the place of ``cu_seqlens``."""
    layers = _attentions(tower)
    for layer in layers:
        layer.forward = partial(_attend, layer, given)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _attend(
    layer: Any,
    given: Segments | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens: Segments | None = None,
    **lengths: Any,
) -> Tensor:
    """In the place of vLLM's attention, of ``(1, rows, heads, d)`` or ``(1, rows, heads * d)``."""
    now = cu_seqlens if given is None else given
    assert now is not None
    shape = query.shape
    query, key, value = (each.reshape(shape[1], -1, layer.head_size) for each in (query, key, value))
    if layer.is_flash_attn_backend:
        from vllm.v1.attention.backends.fa_utils import flash_attn_varlen_func

        version = {} if layer._fa_version is None else {"fa_version": layer._fa_version}
        out = flash_attn_varlen_func(
            query, key[now.keys], value[now.keys], cu_seqlens_q=now.query_ends, cu_seqlens_k=now.key_ends,
            max_seqlen_q=now.most[0], max_seqlen_k=now.most[1], causal=False, softmax_scale=layer.scale, **version,
        )  # fmt: skip
        return out.reshape(shape)
    grouped = layer.num_heads > layer.num_kv_heads
    out = torch.cat(
        [
            apply_sdpa(query[each.queries], key[each.keys], value[each.keys], layer.scale, grouped).flatten(0, 1)
            for each in now.batches
        ]
    )
    return out[now.back].reshape(shape)


def _patches(tokens: Tensor, unit: int) -> Tensor:
    """The patches of tokens, ``unit`` of each, one after another."""
    return (tokens[:, None] * unit + torch.arange(unit)).flatten()
