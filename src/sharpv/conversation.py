"""Later turns: a pruned prompt stays on the cache that holds it, and what follows is shortened alike.

Callers go on counting in full prompts; these functions translate for the model. They only read what
:mod:`sharpv.prompt` wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from .cache import rows_of
from .memory import drop_trace, trace_of
from .models import Family
from .models.base import RAW_PIXELS
from .prompt import PrunedPrompt, vision_inputs
from .report import Report

REQUEST = "_sharpv_request"


@dataclass
class Request:
    """One request, on the cache that holds its prompt: so threads, nested calls and copies of a cache keep apart.

    Attributes:
        prompt: the pruned prompt.
        said: ``(B, n)`` ids of what the cache holds after the full prompt, as far as they are known.
        report: what pruning did, once the prompt has been read.
        generating: whether ``generate`` runs on this cache: its forward passes are then prepared already.
    """

    prompt: PrunedPrompt
    said: Tensor
    report: Report | None = None
    generating: bool = False

    @contextmanager
    def generation(self) -> Iterator[None]:
        """Around the model's own ``generate``."""
        self.generating = True
        try:
            yield
        finally:
            self.generating = False

    def heard(self, sequences: Tensor, cache: Cache | None) -> None:
        """Note full sequences that were generated into this cache; those of beams are not what it holds."""
        if cache is not None and len(sequences) == len(self.prompt.ids) == rows_of(cache):
            self.said = sequences[:, self.prompt.ids.shape[1] : int(cache.get_seq_length()) + self.prompt.removed]

    def fed(self, tokens: Tensor | None, cache: Cache) -> None:
        """Note ids that a forward pass is about to add; embeddings have none."""
        past = int(cache.get_seq_length()) - self.prompt.visual.shape[1]
        if tokens is not None and len(tokens) == len(self.said) and self.said.shape[1] >= past:
            self.said = torch.cat([self.said[:, :past], tokens], dim=1)


def remember(cache: Cache, prompt: PrunedPrompt) -> Request:
    """Note on a cache which pruned prompt it holds or is about to hold."""
    request = Request(prompt, prompt.ids[:, :0])
    setattr(cache, REQUEST, request)
    return request


def request_on(cache: Cache | None, empty: bool = False) -> Request | None:
    """The request on a cache; None for no cache, one without a pruned prompt, or (unless asked for) an empty one."""
    request: Request | None = getattr(cache, REQUEST, None)
    if cache is None or request is None:
        return None
    return request if empty or int(cache.get_seq_length()) > 0 else None


def release(cache: Cache | None) -> None:
    """Make a cache that was reset an ordinary one again."""
    if cache is not None and hasattr(cache, REQUEST) and int(cache.get_seq_length()) == 0:
        delattr(cache, REQUEST)
        drop_trace(cache)


def refuse_torn(cache: Cache) -> None:
    """A pass that was interrupted has left some layers longer than others."""
    lengths = {int(layer.get_seq_length()) for layer in cache.layers if isinstance(layer, DynamicLayer)}
    if len(lengths) > 1:
        raise ValueError(
            f"this cache was left by an interrupted pass, its layers hold {min(lengths)} to {max(lengths)} tokens: "
            "start with a new cache"
        )


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
    model: PreTrainedModel, family: Family, request: Request, cache: Cache, inputs: Mapping[str, Any], rows: int
) -> dict[str, Any]:
    """``generate`` on a cache with a pruned prompt: the full ids of a later turn, shortened with the first turn's mask.

    The first turn's pixels may be passed again: they are in the cache already. ``rows`` is how many sequences
    ``generate`` will decode.

    Raises:
        ValueError: ids that do not begin with what is cached, a cache with another number of rows, or an image or
            video that the cache has not seen.
    """
    prompt = request.prompt
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
    _refuse_other_history(request, ids[:, length:cached], inputs.get("attention_mask"))
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


def _refuse_other_history(request: Request, given: Tensor, mask: Tensor | None) -> None:
    """What follows the prompt must be what the cache holds, padding apart."""
    length = request.prompt.ids.shape[1]
    known = request.said[:, : given.shape[1]]
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


def _mask_after(prompt: PrunedPrompt, mask: Tensor | None, full: int, repeats: int = 1) -> Tensor:
    """The shorter prompt's mask, followed by what the full mask says (or ones) of the tokens after the prompt."""
    kept = prompt.inputs["attention_mask"].repeat_interleave(repeats, dim=0)
    length = prompt.ids.shape[1]
    after = kept.new_ones(len(kept), full - length) if mask is None else mask[:, length:].to(kept.dtype)
    return torch.cat([kept, after], dim=1)
