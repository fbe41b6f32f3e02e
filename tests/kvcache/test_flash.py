"""FlashAttention-2's mask conventions, without its kernels: 2-D masks, queries aligned to the last keys.

FlashAttention itself needs a GPU and has not been run. A stand-in with the same masks shows that the shorter prompt and
the layers that forget hand it masks of the right shape and content.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

import sharpv
import tiny
from sharpv.models import find_family
from tiny import Clip

NAME = "flash_stand_in"
PROMPTS: list[list[tiny.Part]] = [[10, 11, Clip(1), 12, 13, 14], [10, Clip(2), 15]]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal from the lower right corner; a 2-D mask over the keys hides padding."""
    queries, keys = query.shape[2], key.shape[2]
    assert attention_mask is None or attention_mask.shape == (len(query), keys)
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)[None, None]
    if attention_mask is not None:
        seen = seen & attention_mask[:, None, None].bool()
        seen = seen | ~seen.any(-1, keepdim=True)  # rows of padding see something, or softmax gives NaN
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    out = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling)
    return out.transpose(1, 2).contiguous(), None


@pytest.fixture(autouse=True)
def stand_in() -> Iterator[None]:
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    yield
    AttentionInterface._global_mapping.pop(NAME)
    AttentionMaskInterface._global_mapping.pop(NAME)


@pytest.mark.skipif(Version(transformers.__version__) < Version("5.23"), reason="chunks are refused below 5.23")
def test_chunks_with_gaps_are_refused(model, family):
    inputs, text = tiny.FAMILIES[family].inputs(PROMPTS[:1]), model.config.get_text_config()
    gaps = find_family(model).positions == "1d"
    text._attn_implementation = NAME
    try:
        with sharpv.apply(model, memory=None):
            if gaps:
                with pytest.raises(ValueError, match="FlashAttention reads gaps"):
                    model.generate(**inputs, prefill_chunk_size=7, max_new_tokens=2)
            else:
                model.generate(**inputs, prefill_chunk_size=7, max_new_tokens=2)
        with sharpv.apply(model, memory=None, positions="packed"):
            model.generate(**inputs, prefill_chunk_size=7, max_new_tokens=2)
    finally:
        text._attn_implementation = "sdpa"


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "padded batch"])
@pytest.mark.parametrize("memory", [None, tiny.HIGH_M])
def test_flash_masks_give_what_sdpa_gives(model, family, prompts, memory):
    inputs = tiny.FAMILIES[family].inputs(prompts)
    text = model.get_decoder().config
    logits = {}
    for attention in ("sdpa", NAME):
        text._attn_implementation = attention
        try:
            with sharpv.apply(model, memory=memory) as handle:
                out = model.generate(
                    **inputs, max_new_tokens=4, do_sample=False, return_dict_in_generate=True, output_logits=True
                )
        finally:
            text._attn_implementation = "sdpa"
        logits[attention] = torch.stack(out.logits)
    assert memory is None or any(any(row) for row in handle.report.forgotten)
    torch.testing.assert_close(logits["sdpa"], logits[NAME], atol=1e-5, rtol=0)
