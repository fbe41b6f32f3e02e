"""The inputs with one entry per prompt token: positions in the full prompt, and what the shorter one keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..kvcache.masks import kept_columns
from ..models import Family

PER_TOKEN = {"token_type_ids": 0, "mm_token_type_ids": 0, "labels": -100}
"""Inputs with one entry per prompt token besides ids, mask and positions, and what stands at padding."""


def full_positions(
    model: PreTrainedModel, family: Family, ids: Tensor, real: Tensor, inputs: Mapping[str, Any]
) -> Tensor:
    """Positions of the full prompt: ``(B, L)``, or ``(4, B, L)`` (text, time, height, width) for multimodal RoPE."""
    given: Tensor | None = inputs.get("position_ids")
    if given is not None:
        return given
    text = (real.long().cumsum(-1) - 1).clamp(min=0)
    if family.positions == "1d":
        return text
    names = ("mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    known = {name: inputs[name] for name in names if inputs.get(name) is not None}
    if "mm_token_type_ids" not in known:
        raise ValueError("multimodal RoPE needs mm_token_type_ids: pass on everything that the processor returns")
    visual, _ = model.base_model.get_rope_index(ids, attention_mask=real.long(), **known)
    return torch.cat([text[None], visual])


def shorten(
    model: PreTrainedModel, inputs: Mapping[str, Any], keep: Tensor, positions: Tensor, width: int, packed: bool
) -> dict[str, Tensor]:
    """Every per-token input of the shorter prompt, its positions from ``positions`` or, if packed, numbered anew."""
    columns = kept_columns(keep, width)
    real = keep.gather(1, columns)
    text_config = model.config.get_text_config()
    known = (getattr(text_config, name, None) for name in ("pad_token_id", "eos_token_id"))  # some have neither
    padding = next((token for token in known if isinstance(token, int)), 0)
    # a column that only fills up the row may have been a placeholder, which would ask for a feature
    shorter = {
        "input_ids": inputs["input_ids"].gather(1, columns).masked_fill(~real, padding),
        "attention_mask": real.to(torch.long),
    }
    for name, fill in PER_TOKEN.items():
        if inputs.get(name) is not None:
            shorter[name] = inputs[name].gather(1, columns).masked_fill(~real, fill)
    numbered = (real.long().cumsum(-1) - 1).clamp(min=0)
    if packed:
        shorter["position_ids"] = numbered.expand(*positions.shape[:-2], -1, -1)
        return shorter
    shorter["position_ids"] = positions.gather(-1, columns.expand(*positions.shape[:-2], -1, -1))
    if positions.ndim == 3 and len(positions) == 4:
        # the text row only serves attention masks, which must see one gapless sequence
        shorter["position_ids"][0] = numbered
    return shorter


def last_position(positions: Tensor, shorter: Tensor, packed: bool) -> Tensor:
    """The position after which text goes on, ``(..., B, 1)``: that of the full prompt's last token.

    On multimodal RoPE a prompt ends with text: a model's own rule places what follows a video.

    Args:
        positions: of the full prompt, as :func:`full_positions` gives them.
        shorter: of the shorter one.
        packed: whether that was numbered anew.
    """
    if packed:
        return shorter[..., -1:]
    end = positions[..., -1:]
    if len(positions) == 4 and positions.ndim == 3:  # the text row has no gaps
        end = torch.cat([shorter[:1, :, -1:], end[1:]])
    return end
