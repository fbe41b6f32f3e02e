"""Independent references: the stock model, with tokens hidden by masks instead of dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

import sharpv
import tiny
from sharpv.config import Config
from sharpv.kvcache.cache import CACHE
from sharpv.models import find_family
from sharpv.prompt.prune import prune
from sharpv.prompt.pruned import PrunedPrompt, PrunedVideo


def on(cache: Any) -> dict[str, Any]:
    """The argument of ``generate`` and ``forward`` that hands over a cache."""
    return {CACHE: cache}


def cache_of(out: Any) -> Any:
    """The cache that an output brings."""
    return getattr(out, CACHE)


def pruned_prompt(cache: Any) -> PrunedPrompt:
    """What sharpv noted on a cache."""
    return cache._sharpv_request.prompt


@torch.no_grad()
def survivors(model: PreTrainedModel, inputs: dict[str, Any], config: Config) -> list[tuple[PrunedVideo, Tensor]]:
    """Each video and what its surviving patches carry, ``(kept, D)``, as the language model reads them."""
    family = find_family(model)
    handed, prompt = prune(model, family, config, inputs)
    rows = torch.cat(list(handed["mm_encoder_outputs"][family.handed_as].pooler_output))
    layouts = [video.layout for video in prompt.videos]
    kept = [layout.spread(video.keep, others=True) for layout, video in zip(layouts, prompt.videos)]
    parts = rows.split([int(rows.sum()) for rows in kept])
    every = [torch.ones_like(video.keep) for video in prompt.videos]
    patches = [layout.spread(all_of_it, others=False) for layout, all_of_it in zip(layouts, every)]
    return [(video, part[is_patch[stays]]) for video, part, is_patch, stays in zip(prompt.videos, parts, patches, kept)]


def patch_columns(model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
    """(B, L) bool: placeholders of video patches, without newlines and class tokens."""
    return {**tiny.FAMILIES, **tiny.VARIANTS}[model.config.model_type].patch_columns(inputs)


def stock(inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs that the stock model understands."""
    return {name: value for name, value in inputs.items() if name != "video_frames"}


def full_positions(model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
    """Positions that the stock model would give the full prompt."""
    kwargs = {k: v for k, v in inputs.items() if k not in ("input_ids", "pixel_values", "pixel_values_videos")}
    return model._prepare_position_ids_for_generation(inputs["input_ids"], {**kwargs})


@torch.no_grad()
def prompt_logits(model: PreTrainedModel, inputs: dict[str, Any], keep: Tensor) -> list[Tensor]:
    """Per sample, the reference's logits at the columns that are kept."""
    if hybrid(model):
        embeddings, mask, places = _short(model, inputs, keep)
        out = model.get_decoder()(inputs_embeds=embeddings, attention_mask=mask, position_ids=places)
        return [model.lm_head(states[real]) for states, real in zip(out.last_hidden_state, mask.bool())]
    masked = {"attention_mask": keep.long(), "position_ids": full_positions(model, inputs)}
    return [logits[kept] for logits, kept in zip(model(**{**stock(inputs), **masked}).logits, keep)]


@torch.no_grad()
def reference_logits(
    model: PreTrainedModel,
    inputs: dict[str, Any],
    keep: Tensor,
    new: Tensor,
    forgotten: Sequence[Sequence[bool]] | None = None,
) -> Tensor:
    """Logits of the stock model, teacher forced, that a pruned run must equal.

    They are those of the unpruned model with dropped columns masked, or for models whose convolutions, states or
    windows see masked tokens too, of the short sequence itself, put together by hand.

    Args:
        keep: (B, L) bool columns of the full prompt that may be seen.
        new: (B, k) tokens that follow.
        forgotten: per decoder layer and sample, whether decoding must not see the video (the memory stage).

    Returns:
        (B, k, V): logits before each of the new tokens.
    """
    assert sharpv.Pruning.of(model) is None
    rows = [(layer, torch.tensor(row)[:, None]) for layer, row in enumerate(forgotten or []) if row]
    hidden = [(layer, patch_columns(model, inputs) & row) for layer, row in rows]
    if hybrid(model):
        return _short_logits(model, inputs, keep, new, [(layer, _shorten(columns, keep)) for layer, columns in hidden])
    return _masked_logits(model, inputs, keep, new, hidden)


def hybrid(model: PreTrainedModel) -> bool:
    """Whether hiding a token by a mask is not the same as leaving it out."""
    return bool({**tiny.FAMILIES, **tiny.VARIANTS}[model.config.model_type].hybrid)


def _masked_logits(
    model: PreTrainedModel, inputs: dict[str, Any], keep: Tensor, new: Tensor, hidden: list[tuple[int, Tensor]]
) -> Tensor:
    batch, length = inputs["input_ids"].shape
    positions = full_positions(model, inputs)
    steps = torch.arange(1, new.shape[1] + 1)
    positions = torch.cat([positions, positions[..., -1:] + steps], dim=-1)
    prompt = {**stock(inputs), "attention_mask": keep.long(), "position_ids": positions[..., :length]}
    out = model(**prompt, use_cache=True)
    logits, cache = [out.logits[:, -1]], cache_of(out)
    with _hiding(model, hidden):
        for step in range(new.shape[1] - 1):
            seen = torch.cat([keep.long(), torch.ones(batch, step + 1, dtype=torch.long)], dim=1)
            place = positions[..., length + step : length + step + 1]
            token = new[:, step : step + 1]
            out = model(input_ids=token, attention_mask=seen, position_ids=place, **on(cache))
            logits.append(out.logits[:, -1])
    return torch.stack(logits, dim=1)


def _short_logits(
    model: PreTrainedModel, inputs: dict[str, Any], keep: Tensor, new: Tensor, hidden: list[tuple[int, Tensor]]
) -> Tensor:
    embeddings, mask, places = _short(model, inputs, keep)
    decoder, logits, cache = model.get_decoder(), [], None
    for step in range(new.shape[1]):
        with _hiding(model, hidden if step else []):
            out = decoder(
                inputs_embeds=embeddings, attention_mask=mask, position_ids=places, use_cache=True, **on(cache)
            )
        cache = cache_of(out)
        logits.append(model.lm_head(out.last_hidden_state[:, -1]))
        embeddings = model.get_input_embeddings()(new[:, step : step + 1])
        places, mask = places[..., -1:] + 1, torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return torch.stack(logits, dim=1)


def _short(model: PreTrainedModel, inputs: dict[str, Any], keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, mask and positions of the kept columns alone, padded on the left."""
    seen: dict[str, Tensor] = {}
    hook = model.get_decoder().register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    model(**{**stock(inputs), "position_ids": full_positions(model, inputs)})
    hook.remove()
    mask = _shorten(keep, keep).long()
    places = torch.stack([_shorten(row, keep) for row in seen["position_ids"]])
    places[0] = (mask.cumsum(1) - 1).clamp(min=0)  # of multimodal RoPE, the text row
    return _shorten(seen["inputs_embeds"], keep), mask, places


def _shorten(columns: Tensor, keep: Tensor) -> Tensor:
    """The kept columns of each row of (B, L, ...), aligned to the right and filled with zeros."""
    short = columns.new_zeros(len(keep), int(keep.sum(1).max()), *columns.shape[2:])
    for row, kept in enumerate(keep):
        short[row, short.shape[1] - int(kept.sum()) :] = columns[row, kept]
    return short


@contextmanager
def _hiding(model: PreTrainedModel, hidden: list[tuple[int, Tensor]]) -> Iterator[None]:
    layers = model.get_decoder().layers
    hooks = [
        layers[index].register_forward_pre_hook(_hide(index, columns), with_kwargs=True) for index, columns in hidden
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


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
