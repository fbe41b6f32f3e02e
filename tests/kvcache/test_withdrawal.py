"""FastV and VTW: tokens that leave the model at a layer, against the stock model with masks from that layer on."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

import sharpv
import tiny
from reference import _hiding, cache_of, full_positions, hybrid, on, patch_columns, stock
from sharpv.kvcache import VTW, FastV, Withdrawal
from sharpv.kvcache.cache import ForgettingLayer
from sharpv.models import find_family
from tiny import Clip

PROMPTS: list[list[tiny.Part]] = [[10, 11, Clip(1), 12, 13, 14], [10, Clip(2, frames=4), 15]]
NEW, LAYER = 4, 3
RULES = {"fastv": FastV(LAYER, retention=0.4), "vtw": VTW(LAYER)}
ABLE = [name for name, family in tiny.FAMILIES.items() if not family.hybrid]


@pytest.fixture(params=list(RULES))
def method(request: pytest.FixtureRequest) -> Withdrawal:
    return RULES[request.param]


@pytest.fixture(params=ABLE)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def generate(model, inputs, method, **options):
    with sharpv.apply(model, retention=1.0, memory=method) as handle:
        out = model.generate(
            **inputs, max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True, output_logits=True,
            output_scores=True, **options,
        )  # fmt: skip
    return out, torch.stack(out.logits, dim=1), handle.report


@torch.no_grad()
def chosen_columns(model, inputs, method) -> Tensor:
    """(B, L) the patches that leave: for FastV by attention weights of the whole stock model."""
    patches = patch_columns(model, inputs)
    if not method.reads_attention:
        return patches
    attention = model.get_decoder().layers[LAYER - 1].self_attn
    config, seen = attention.config, []
    hook = attention.register_forward_hook(lambda _, args, out: seen.append(out[1]))
    usual, config._attn_implementation = config._attn_implementation, "eager"
    model(**{**stock(inputs), "position_ids": full_positions(model, inputs)})
    config._attn_implementation = usual
    hook.remove()
    worth = seen[0][:, :, -1].mean(dim=1).masked_fill(~patches, -1)
    gone = patches.clone()
    for row, count in enumerate(patches.sum(1).tolist()):
        gone[row, worth[row].topk(round(method.retention * count)).indices] = False
    return gone


@torch.no_grad()
def reference(model, inputs, gone: Tensor, new: Tensor) -> Tensor:
    """The stock model, from LAYER on with these columns hidden from everybody, prefill included."""
    length, logits, cache = inputs["input_ids"].shape[1], [], None
    steps = torch.arange(1, new.shape[1] + 1)
    positions = full_positions(model, inputs)
    positions = torch.cat([positions, positions[..., -1:] + steps], dim=-1)
    mask = inputs["attention_mask"]
    given = {**stock(inputs), "position_ids": positions[..., :length], "use_cache": True}
    with _hiding(model, [(layer, gone) for layer in range(LAYER, tiny.LAYERS)]):
        for step in range(new.shape[1]):
            out = model(**{**given, "attention_mask": mask}, **(on(cache) if cache else {}))
            logits.append(out.logits[:, -1])
            cache = cache_of(out)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            place = positions[..., length + step : length + step + 1]
            given = {"input_ids": new[:, step : step + 1], "position_ids": place}
    return torch.stack(logits, dim=1)


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "padded batch"])
def test_equals_the_stock_model_with_masks_from_that_layer_on(family, attention, method, prompts):
    model, inputs = tiny.build(family, attention), tiny.FAMILIES[family].inputs(prompts)
    out, logits, report = generate(model, inputs, method)
    new = out.sequences[:, inputs["input_ids"].shape[1] :]
    gone = chosen_columns(model, inputs, method)
    # sharpv's own prompt has no padding that the processor's has not: columns are the same
    torch.testing.assert_close(logits, reference(model, inputs, gone, new), atol=1e-5, rtol=0)
    # the test has power
    whole = reference(model, inputs, torch.zeros_like(gone), new)
    assert (logits - whole).abs().max() > 1e-4
    assert report.retention == 1.0
    left = (report.total - int(gone.sum())) / report.total
    assert report.layer_retention == pytest.approx((LAYER + left * (tiny.LAYERS - LAYER)) / tiny.LAYERS)
    assert report.kv_bytes < report.dense_kv_bytes
    assert f"kept {100 * report.layer_retention:.1f} % of visual tokens x layers" in str(report)


def test_the_layers_store_what_they_were_given(family, method):
    model, inputs = tiny.build(family), tiny.FAMILIES[family].inputs(PROMPTS[:1])
    out, _, _ = generate(model, inputs, method)
    gone = int(chosen_columns(model, inputs, method).sum())
    length = out.sequences.shape[1] - 1
    for index, layer in enumerate(cache_of(out).layers):
        assert isinstance(layer, ForgettingLayer) and layer.get_seq_length() == length
        assert layer.keys.shape[2] == length - gone * (index >= LAYER)


def test_beams_equal_one_by_one(family, method):
    model = tiny.build(family)
    options = dict(num_beams=3, num_return_sequences=2)
    together, _, _ = generate(model, tiny.FAMILIES[family].inputs(PROMPTS), method, **options)
    for row, prompt in enumerate(PROMPTS):
        alone, _, _ = generate(model, tiny.FAMILIES[family].inputs([prompt]), method, **options)
        assert torch.equal(together.sequences[2 * row : 2 * row + 2, -NEW:], alone.sequences[:, -NEW:])


def test_a_later_turn_reads_what_is_left(family, method):
    """Decoding by hand over two turns equals one generation that was given the first turn's words."""
    model, inputs = tiny.build(family), tiny.FAMILIES[family].inputs(PROMPTS[:1])
    with sharpv.apply(model, retention=1.0, memory=method):
        first = model.generate(**inputs, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
        ids = torch.cat([first.sequences, torch.tensor([[12, 13]])], dim=1)
        options = dict(max_new_tokens=2, do_sample=False, return_dict_in_generate=True, output_logits=True)
        mask = torch.ones_like(ids)
        later = model.generate(input_ids=ids, attention_mask=mask, **on(cache_of(first)), **options)
    gone = chosen_columns(model, inputs, method)
    forced = later.sequences[:, inputs["input_ids"].shape[1] :]
    expected = reference(model, inputs, gone, forced)[:, -2:]
    torch.testing.assert_close(torch.stack(later.logits, dim=1), expected, atol=1e-5, rtol=0)


def test_they_combine_with_a_first_stage(family, method):
    """What leaves is taken of the survivors, and the rest is as the first stage alone left it."""
    model, inputs = tiny.build(family), tiny.FAMILIES[family].inputs(PROMPTS[:1])
    with sharpv.apply(model, "sharpv", retention=0.5, memory=method) as handle:
        out = model.generate(**inputs, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
    report, prompt = handle.report, cache_of(out)._sharpv_request.prompt
    kept = int(prompt.visual.sum())
    assert report.kept == kept == round(0.5 * report.total)
    left = max(round(getattr(method, "retention", 0) * kept), 0)
    assert report.withdrawn == (kept - left) * (tiny.LAYERS - LAYER)
    assert report.layer_retention == pytest.approx(
        (kept * LAYER + left * (tiny.LAYERS - LAYER)) / (report.total * tiny.LAYERS)
    )


def test_refusals():
    model = tiny.build("qwen3_vl")
    inputs = tiny.FAMILIES["qwen3_vl"].inputs(PROMPTS[:1])
    deep = len(model.config.vision_config.deepstack_visual_indexes)
    for make, sentence in (
        (lambda: FastV(0), "layer must be a whole number of at least 1, got 0"),
        (lambda: sharpv.apply(model, memory=FastV(9)), f"layers {deep} to 3 of this model, got layer=9"),
        (lambda: sharpv.apply(model, memory=VTW(deep - 1)), f"before the layers {deep} to 3 of this model"),
        (lambda: FastV(retention=1.5), "retention must lie in (0, 1], got 1.5"),
        (lambda: sharpv.apply(model, "fastv"), "'fastv' acts inside the language model: pass memory='fastv'"),
        (lambda: sharpv.trim(model, inputs, memory="vtw"), "trim is the first stage alone, got memory=VTW(layer=3)"),
        (lambda: sharpv.apply(tiny.build("qwen3_5"), memory="vtw"), "needs attention in every layer"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            make()
    with sharpv.apply(model, memory=VTW(3)) as handle:
        with pytest.raises(ValueError, match="pass no labels and use_cache=True"):
            model(**inputs, labels=inputs["input_ids"])
        with pytest.raises(ValueError, match="vtw drops tokens inside the model and needs its cache"):
            model.generate(**inputs, max_new_tokens=2, use_cache=False)
    assert not handle.active and sharpv.Pruning.of(model) is None
    assert all(hybrid(tiny.build(name)) == find_family(tiny.build(name)).hybrid for name in ("qwen3_5", "qwen3_vl"))
