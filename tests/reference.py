"""Independent references: the stock model, with tokens hidden by masks instead of dropped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

import sharpv
from sharpv.memory import CACHE
from sharpv.prompt import PrunedPrompt


def on(cache: Any) -> dict[str, Any]:
    """The argument of ``generate`` and ``forward`` that hands over a cache."""
    return {CACHE: cache}


def cache_of(out: Any) -> Any:
    """The cache that an output brings."""
    return getattr(out, CACHE)


def pruned_prompt(cache: Any) -> PrunedPrompt:
    """What sharpv noted on a cache."""
    return cache._sharpv_prompt


def patch_columns(model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
    """(B, L) bool: placeholders of video patches, without LLaVA-OneVision's newline and Video-LLaVA's class tokens."""
    columns = inputs["input_ids"] == model.config.video_token_id
    if model.config.model_type == "video_llava":
        columns = columns & ((columns.cumsum(1) - 1) % 10 != 0)
    if model.config.model_type == "llava_onevision":
        last = columns & ~torch.nn.functional.pad(columns, (0, 1))[:, 1:]
        columns = columns & ~last
    return columns


def full_positions(model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
    """Positions that the stock model would give the full prompt."""
    kwargs = {k: v for k, v in inputs.items() if k not in ("input_ids", "pixel_values", "pixel_values_videos")}
    return model._prepare_position_ids_for_generation(inputs["input_ids"], {**kwargs})


@torch.no_grad()
def masked_dense_logits(
    model: PreTrainedModel,
    inputs: dict[str, Any],
    keep: Tensor,
    new: Tensor,
    hidden_in_decode: dict[int, Tensor] | None = None,
) -> Tensor:
    """Logits of the stock, unpruned model with dropped columns masked, teacher forced.

    Args:
        keep: (B, L) bool columns of the full prompt that may be seen.
        new: (B, k) tokens that follow.
        hidden_in_decode: per decoder layer, (B, L) bool columns that decoding must not see (the memory stage).

    Returns:
        (B, k, V): logits before each of the new tokens.
    """
    assert sharpv.Handle.of(model) is None
    batch, length = inputs["input_ids"].shape
    positions = full_positions(model, inputs)
    steps = torch.arange(1, new.shape[1] + 1)
    positions = torch.cat([positions, positions[..., -1:] + steps], dim=-1)
    out = model(**{**inputs, "attention_mask": keep.long(), "position_ids": positions[..., :length]}, use_cache=True)
    logits, cache = [out.logits[:, -1]], cache_of(out)
    handles = []
    for index, layer in enumerate(model.base_model.language_model.layers):
        if hidden_in_decode is not None:
            handles.append(layer.register_forward_pre_hook(_hide(index, hidden_in_decode[index]), with_kwargs=True))
    try:
        for step in range(new.shape[1] - 1):
            seen = torch.cat([keep.long(), torch.ones(batch, step + 1, dtype=torch.long)], dim=1)
            place = positions[..., length + step : length + step + 1]
            token = new[:, step : step + 1]
            out = model(input_ids=token, attention_mask=seen, position_ids=place, **on(cache))
            logits.append(out.logits[:, -1])
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(logits, dim=1)


def _hide(index: int, columns: Tensor):
    def hook(module, args, kwargs):
        mask, cache = kwargs["attention_mask"], kwargs[CACHE]
        query = (args[0] if args else kwargs["hidden_states"]).shape[1]
        length = cache.get_seq_length(index) + query
        hide = torch.zeros(len(columns), length, dtype=torch.bool)
        hide[:, : columns.shape[1]] = columns
        hide = hide[:, None, None]
        if mask is None:
            eager = module.self_attn.config._attn_implementation == "eager"
            mask = (
                torch.zeros(len(columns), 1, query, length) if eager else torch.ones(len(columns), 1, query, length) > 0
            )
        mask = mask & ~hide if mask.dtype == torch.bool else mask.masked_fill(hide, torch.finfo(mask.dtype).min)
        return args, {**kwargs, "attention_mask": mask}

    return hook
