"""Ways of generating: what was asked for, and which of them cannot be done right."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import PreTrainedModel

from .config import Config
from .models import Family


def refuse_mode(
    model: PreTrainedModel,
    family: Family,
    config: Config,
    option: Callable[[str], Any],
    kwargs: Mapping[str, Any],
) -> None:
    """Refuse, before anything runs, what cannot be done right: ``option`` looks up generation options by name.

    Raises:
        ValueError: the mode and what to do instead, in one sentence.
    """
    second = config.second
    gaps = config.positions == "original" and family.positions == "1d"
    implementation = option("cache_implementation")
    if second is not None and implementation not in (None, "dynamic"):
        raise ValueError(
            f"memory needs the dynamic cache, got cache_implementation={implementation!r}: apply with memory=None"
        )
    if implementation == "paged":
        raise ValueError("cache_implementation='paged' reads prompts without their videos: drop it")
    if option("prefill_chunk_size") is not None:
        if second is not None:
            raise ValueError("memory needs the prefill in one piece: apply with memory=None for prefill_chunk_size")
        if Version(transformers.__version__) < Version("5.23"):
            raise ValueError(
                f"prefill_chunk_size reads videos wrongly in transformers {transformers.__version__}: needs >= 5.23"
            )
        if gaps and str(model.config.get_text_config()._attn_implementation).startswith("flash"):
            raise ValueError(
                "FlashAttention reads gaps between original positions as new sequences in later "
                "chunks: drop prefill_chunk_size, or apply with positions='packed'"
            )
    draft, types = kwargs.get("assistant_model"), "mm_token_type_ids"
    if second is not None and (draft is not None or option("prompt_lookup_num_tokens") is not None):
        raise ValueError(
            "memory decides after prefill, but assisted decoding judges its first candidates in the same pass: "
            "apply with memory=None"
        )
    if draft is not None and types in kwargs and types not in inspect.signature(draft.forward).parameters:
        raise ValueError(
            f"transformers hands {types} to the assistant model, and {type(draft).__name__} does not take it: "
            "on this model assisted decoding needs a draft of the same kind, or prompt_lookup_num_tokens"
        )
    if option("use_cache") is False and second is not None and second.shortens:
        raise ValueError(f"{second.name} drops tokens inside the model and needs its cache: use_cache=True")
    if option("use_cache") is False and gaps:
        raise ValueError(
            "use_cache=False has transformers read gaps between original positions as new sequences: "
            "keep the cache, or apply with positions='packed'"
        )


def inferred_mask(ids: Tensor, pad: int | None, eos: int | list[int] | None) -> Tensor:
    """The mask that transformers infers where none was given: padding is not real, unless it also ends sequences."""
    ends = [eos] if isinstance(eos, int) else eos or []
    return torch.ones_like(ids) if pad is None or pad in ends else ids.ne(pad).long()


def generation_option(model: PreTrainedModel, generation_config: Any, kwargs: Mapping[str, Any], name: str) -> Any:
    """A generation option from where it was given: the call, the passed config, the model's own config."""
    for source in (kwargs, vars(generation_config) if generation_config is not None else {}):
        if source.get(name) is not None:
            return source[name]
    return getattr(model.generation_config, name, None)
