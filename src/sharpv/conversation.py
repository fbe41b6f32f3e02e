"""Later turns: a pruned prompt stays on the cache that holds it, and what follows is shortened alike.

Callers go on counting in full prompts; these functions translate for the model. They only read what
:mod:`sharpv.prompt` wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from .memory import drop_trace, trace_of
from .models import Family
from .models.base import RAW_PIXELS
from .prompt import PrunedPrompt, vision_inputs

PROMPT = "_sharpv_prompt"


def remember(cache: Cache, prompt: PrunedPrompt) -> None:
    """Note on a cache which pruned prompt it is about to hold."""
    setattr(cache, PROMPT, prompt)


def prompt_on(cache: Cache | None) -> PrunedPrompt | None:
    """The pruned prompt that a cache holds; None for no cache, an empty one, or one without a pruned prompt."""
    prompt: PrunedPrompt | None = getattr(cache, PROMPT, None)
    return prompt if cache is not None and prompt is not None and int(cache.get_seq_length()) > 0 else None


def release(cache: Cache | None) -> None:
    """Make a cache that was reset an ordinary one again."""
    if cache is not None and hasattr(cache, PROMPT) and int(cache.get_seq_length()) == 0:
        delattr(cache, PROMPT)
        drop_trace(cache)


def refuse_lost_entries(cache: Cache) -> None:
    """Only the memory stage's hooks can read a cache that has forgotten."""
    trace = trace_of(cache)
    if trace is not None and any(bool(row.any()) for row in trace.forgotten.values()):
        raise ValueError(
            "this cache has forgotten visual entries: continue with the memory stage on, or start with a new cache"
        )


def refuse_new_video(cache: Cache) -> None:
    """A video can only be pruned into an empty cache."""
    if int(cache.get_seq_length()) > 0:
        raise ValueError(
            "a new video in a later turn cannot be pruned into a cache that already holds "
            f"{int(cache.get_seq_length())} tokens: start with a new cache and the whole conversation"
        )


def later_turn(
    model: PreTrainedModel, family: Family, prompt: PrunedPrompt, cache: Cache, inputs: Mapping[str, Any]
) -> dict[str, Any]:
    """``generate`` on a cache with a pruned prompt: the full ids of a later turn, shortened with the first turn's mask.

    The first turn's pixels may be passed again: they are in the cache already.

    Raises:
        ValueError: ids that do not begin with the cached prompt, or an image or video that the cache has not seen.
    """
    ids, length = inputs["input_ids"], prompt.ids.shape[1]
    if ids.shape[1] < length or not torch.equal(ids[:, :length], prompt.ids):
        raise ValueError(
            "this cache holds another pruned prompt: a later turn must begin with the same "
            f"{length} token ids, in the same batch"
        )
    cached = int(cache.get_seq_length()) + prompt.removed
    if ids.shape[1] <= cached:
        raise ValueError(
            f"the cache already holds {cached} tokens of this conversation, but only {ids.shape[1]} were passed: "
            "a later turn passes the whole conversation, or start with a new cache"
        )
    # before that, the model itself may have generated a placeholder: that is text
    placeholders = [getattr(model.config, name) for name in ("image_token_id", family.placeholder)]
    fresh = torch.isin(ids[:, cached:], torch.tensor(placeholders, device=ids.device)).any()
    if fresh or _videos(model, family, inputs) not in (0, len(prompt.videos)):
        raise ValueError(
            "a new image or video in a later turn on a pruned cache is not supported: "
            "start with a new cache and the whole conversation"
        )
    seen = vision_inputs(model, family)
    later = {name: value for name, value in inputs.items() if name not in seen}
    later["attention_mask"] = _mask_after(prompt, inputs.get("attention_mask"), ids.shape[1])
    later["position_ids"] = prompt.positions_after(later["attention_mask"][:, prompt.visual.shape[1] :])
    for name in prompt.inputs.keys() - {"attention_mask", "position_ids"}:
        if inputs.get(name) is not None:
            later[name] = torch.cat([prompt.inputs[name], inputs[name][:, length:]], dim=1)
    return later


def next_pass(prompt: PrunedPrompt, cache: Cache, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """``forward`` on a cache with a pruned prompt: positions of the new tokens, and the mask without dropped columns.

    Raises:
        ValueError: an image or video beside a cache that holds a pruned prompt, or a mask of another length.
    """
    if any(inputs.get(pixels) is not None for pixels in RAW_PIXELS.values()):
        raise ValueError(
            "an image or video was passed together with a cache that already holds a pruned prompt: "
            "pass only the new tokens, or start with a new cache"
        )
    tokens = inputs["input_ids"] if inputs.get("input_ids") is not None else inputs["inputs_embeds"]
    past, new, kept = int(cache.get_seq_length()), tokens.shape[1], prompt.visual.shape[1]
    repeats = len(tokens) // len(prompt.ids)
    mask = inputs.get("attention_mask")
    full = past + new + prompt.removed
    if mask is not None and mask.shape not in ((len(tokens), full), (len(tokens), past + new)):
        raise ValueError(f"attention_mask must cover the conversation, {(len(tokens), full)}, got {tuple(mask.shape)}")
    if mask is None or mask.shape[1] == full:
        mask = _mask_after(prompt, mask, full, repeats)
    positions = inputs.get("position_ids")
    if positions is None:
        positions = prompt.positions_after(mask[:, kept:], repeats)[..., -new:]
    return {**inputs, "attention_mask": mask, "position_ids": positions}


def _videos(model: PreTrainedModel, family: Family, inputs: Mapping[str, Any]) -> int:
    """How many videos these inputs bring."""
    if not family.has_video(inputs):
        return 0
    return sum(layout.frames > 0 for layout in family.layouts(model, inputs, None))


def _mask_after(prompt: PrunedPrompt, mask: Tensor | None, full: int, repeats: int = 1) -> Tensor:
    """The shorter prompt's mask, followed by what the full mask says (or ones) of the tokens after the prompt."""
    kept = prompt.inputs["attention_mask"].repeat_interleave(repeats, dim=0)
    length = prompt.ids.shape[1]
    after = kept.new_ones(len(kept), full - length) if mask is None else mask[:, length:].to(kept.dtype)
    return torch.cat([kept, after], dim=1)
