"""Later turns: a pruned prompt stays on the cache that holds it, and what follows is shortened alike.

Callers go on counting in full prompts; these functions translate for the model. They only read what :mod:`.prune`
wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from ..kvcache.cache import rows_of
from ..models import Family
from ..models.base import RAW_PIXELS, pixel_inputs
from .prune import refuse_unread, vision_inputs
from .pruned import PrunedPrompt


def later_turn(
    model: PreTrainedModel,
    family: Family,
    prompt: PrunedPrompt,
    said: Tensor,
    cache: Cache,
    inputs: Mapping[str, Any],
    rows: int,
) -> dict[str, Any]:
    """``generate`` on a cache with a pruned prompt: the full ids of a later turn, shortened with the first turn's mask.

    The first turn's pixels may be passed again: they are in the cache already.

    Args:
        prompt: on the cache.
        said: ``(B, n)`` ids of what the cache holds after the full prompt, as far as they are known.
        rows: how many sequences ``generate`` will decode.

    Raises:
        ValueError: ids that do not begin with what is cached, a cache with another number of rows, or an image or
            video that the cache has not seen.
    """
    inputs = family.own_names(inputs)
    seen = vision_inputs(model, family)
    refuse_unread(family, seen, inputs)
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
    held = rows_of(cache)
    if held not in (None, rows):
        raise ValueError(
            f"this cache holds {held} rows, but this turn decodes {rows} (samples x beams or returned sequences), and "
            "transformers does not expand a cache: "
            + (
                f"call its batch_repeat_interleave({rows // held}) first"
                if held == len(ids)
                else "start with a new cache and the whole conversation"
            )
        )
    _refuse_other_history(length, said, ids[:, length:cached], inputs.get("attention_mask"))
    # before that, the model itself may have generated a placeholder: that is text
    placeholders = [getattr(model.config, name) for name in ("image_token_id", family.placeholder)]
    fresh = torch.isin(ids[:, cached:], torch.tensor(placeholders, device=ids.device)).any()
    if (
        fresh
        or _videos(model, family, inputs) not in (0, len(prompt.videos))
        or _homeless(model, family, prompt, inputs)
    ):
        raise ValueError(
            "a new image or video in a later turn on a pruned cache is not supported: "
            "start with a new cache and the whole conversation"
        )
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
    if pixel_inputs(inputs):
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


def _refuse_other_history(length: int, said: Tensor, given: Tensor, mask: Tensor | None) -> None:
    """What follows the prompt must be what the cache holds, padding apart."""
    known = said[:, : given.shape[1]]
    differs = given[:, : known.shape[1]] != known
    if mask is not None:
        differs &= mask[:, length : length + known.shape[1]].bool()
    if differs.any():
        first = int(differs.any(dim=0).nonzero()[0])
        raise ValueError(
            f"this conversation differs from what the cache holds at token {length + first}: a later turn begins with "
            "the very tokens that were generated (text that is tokenized again may differ), or start with a new cache"
        )


def _videos(model: PreTrainedModel, family: Family, inputs: Mapping[str, Any]) -> int:
    """How many videos these inputs bring."""
    if not family.has_video(inputs):
        return 0
    return sum(layout.frames > 0 for layout in family.layouts(model, inputs, None))


def _homeless(model: PreTrainedModel, family: Family, prompt: PrunedPrompt, inputs: Mapping[str, Any]) -> bool:
    """Whether these inputs bring something beside videos, of which the pruned prompt has none."""
    others = [RAW_PIXELS[name] for name in family.encoders if name != family.modality]
    if all(inputs.get(name) is None for name in others):
        return False
    place = family.other_placeholder(model)
    return place is None or not bool((prompt.ids == place).any())


def _mask_after(prompt: PrunedPrompt, mask: Tensor | None, full: int, repeats: int = 1) -> Tensor:
    """The shorter prompt's mask, followed by what the full mask says (or ones) of the tokens after the prompt."""
    kept = prompt.inputs["attention_mask"].repeat_interleave(repeats, dim=0)
    length = prompt.ids.shape[1]
    after = kept.new_ones(len(kept), full - length) if mask is None else mask[:, length:].to(kept.dtype)
    return torch.cat([kept, after], dim=1)
