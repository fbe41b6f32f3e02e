"""What goes wrong at the edges of a run: found in review, each mended, each with its test."""

from __future__ import annotations

import gc
import inspect
import json
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

import sharpv
import tiny
from reference import cache_of, on, stock
from sharpv import SharpV
from sharpv.methods import Random
from sharpv.models import find_family
from tiny import Clip

PROMPTS: list[list[tiny.Part]] = [[10, 11, Clip(1), 12, 13, 14], [10, Clip(2), 15]]
ONE = PROMPTS[:1]
GREEDY = dict(do_sample=False, return_dict_in_generate=True, output_logits=True)


def inputs_of(family: str, prompts: list[list[tiny.Part]] = PROMPTS) -> dict[str, Any]:
    return tiny.FAMILIES[family].inputs(prompts)


def logits_of(out: Any) -> Tensor:
    return torch.stack(out.logits, dim=1)


def test_the_dynamic_cache_may_be_asked_for_by_name(model, family):
    inputs = inputs_of(family, ONE)
    with sharpv.apply(model):
        plain = model.generate(**inputs, max_new_tokens=2)
        named = model.generate(**inputs, max_new_tokens=2, cache_implementation="dynamic")
        config = GenerationConfig(cache_implementation="dynamic", max_new_tokens=2, pad_token_id=tiny.PAD)
        configured = model.generate(**inputs, generation_config=config)
    assert torch.equal(plain, named) and configured.shape == plain.shape


def test_a_cache_may_be_handed_over_by_its_older_name(model, family):
    inputs = inputs_of(family, ONE)
    with sharpv.apply(model, memory=tiny.HIGH_M) as handle:
        plain = model.generate(**inputs, max_new_tokens=3)
        cache = DynamicCache(config=model.config)
        named = model.generate(**inputs, past_key_values=cache, max_new_tokens=3)
        assert cache.get_seq_length() > 0 and handle.report.kv_bytes is not None
        later = model(input_ids=torch.tensor([[16]]), past_key_values=cache)
    assert torch.equal(plain, named) and cache_of(later) is cache


def test_a_cache_that_was_reset_is_an_ordinary_one(model, family):
    text = inputs_of(family, [[10, 11, 12, 13, 14, 15]])
    dense = model.generate(**text, max_new_tokens=3, **GREEDY)
    with sharpv.apply(model, memory=tiny.HIGH_M):
        cache = DynamicCache(config=model.config)
        model.generate(**inputs_of(family, ONE), **on(cache), max_new_tokens=3)
        cache.reset()
        after = model.generate(**text, **on(cache), max_new_tokens=3, **GREEDY)
        torch.testing.assert_close(logits_of(after), logits_of(dense), atol=1e-5, rtol=0)
        cache.reset()
        again = model.generate(**inputs_of(family, PROMPTS[1:]), **on(cache), max_new_tokens=3, **GREEDY)
        fresh = model.generate(**inputs_of(family, PROMPTS[1:]), max_new_tokens=3, **GREEDY)
    torch.testing.assert_close(logits_of(again), logits_of(fresh), atol=1e-5, rtol=0)


def test_a_retry_on_a_filled_cache_is_refused(model, family):
    inputs = inputs_of(family, ONE)
    with sharpv.apply(model):
        cache = DynamicCache(config=model.config)
        model.generate(**inputs, **on(cache), max_new_tokens=3)
        with pytest.raises(ValueError, match="the cache already holds"):
            model.generate(**inputs, **on(cache), max_new_tokens=3)


def test_a_forgotten_cache_needs_the_memory_stage(model, family):
    inputs = inputs_of(family, ONE)
    with sharpv.apply(model, memory=tiny.HIGH_M):
        cache = DynamicCache(config=model.config)
        first = model.generate(**inputs, **on(cache), max_new_tokens=3)
    ids = torch.cat([first, torch.tensor([[16, 17]])], dim=1)
    with sharpv.apply(model, memory=None):
        with pytest.raises(ValueError, match="has forgotten visual entries"):
            model.generate(input_ids=ids, **on(cache), max_new_tokens=3)
        with pytest.raises(ValueError, match="has forgotten visual entries"):
            model(input_ids=torch.tensor([[16]]), **on(cache))


def test_a_later_turn_on_a_static_cache_that_generate_made(model, family):
    inputs = inputs_of(family, ONE)
    turns = []
    with sharpv.apply(model, memory=None):
        for options in ({}, {"cache_implementation": "static", "max_cache_len": 96, "disable_compile": True}):
            first = model.generate(**inputs, max_new_tokens=3, **GREEDY, **options)
            ids = torch.cat([first.sequences, torch.tensor([[16, 17]])], dim=1)
            cache = {**on(cache_of(first)), "disable_compile": True}
            turns.append(model.generate(input_ids=ids, max_new_tokens=3, **cache, **GREEDY))
    torch.testing.assert_close(logits_of(turns[0]), logits_of(turns[1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", [name for name, family in tiny.FAMILIES.items() if not family.hybrid])
def test_padding_between_turns_does_not_count(model, family):
    """A sample that ended early is padded in the middle of the conversation: as if it had been alone.

    Linear attention's state takes in what a mask hides later on, with sharpv or without.
    """
    inputs = inputs_of(family)
    with sharpv.apply(model, memory=None):
        cache = DynamicCache(config=model.config)
        first = model.generate(**inputs, **on(cache), max_new_tokens=3, **GREEDY).sequences
        first[1, -1] = tiny.PAD
        ids = torch.cat([first, torch.full((2, 2), 16)], dim=1)
        after = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 1, 1]])
        mask = torch.cat([inputs["attention_mask"], after], dim=1)
        extra = {"mm_token_type_ids": tiny.FAMILIES[family].types(ids)} if "mm_token_type_ids" in inputs else {}
        batch = {"input_ids": ids, "attention_mask": mask, **extra}
        second = model.generate(**batch, **on(cache), max_new_tokens=3, **GREEDY)
        alone = inputs_of(family, PROMPTS[1:])
        cache = DynamicCache(config=model.config)
        model.generate(**alone, **on(cache), max_new_tokens=2)
        said = torch.cat([alone["input_ids"], first[1:, -3:-1], torch.full((1, 2), 16)], dim=1)
        single = model.generate(
            input_ids=said, attention_mask=torch.ones_like(said), **on(cache), max_new_tokens=3, **GREEDY
        )
    torch.testing.assert_close(logits_of(second)[1], logits_of(single)[0], atol=1e-5, rtol=0)


def test_a_missing_mask_is_inferred_as_transformers_does(model, family):
    inputs = inputs_of(family)
    del inputs["attention_mask"]
    dense = model.generate(**stock(inputs), max_new_tokens=3, **GREEDY)
    with sharpv.apply(model, retention=1.0, memory=None):
        kept = model.generate(**inputs, max_new_tokens=3, **GREEDY)
    assert torch.equal(logits_of(dense), logits_of(kept))


def test_the_vision_tower_s_activations_are_let_go(model, family, monkeypatch):
    """They would stay in memory as long as the pruned prompt, through all of decoding."""
    own, seen = find_family(model), []
    encode = getattr(model.base_model, own.encoders[own.modality])

    def remember(*args: Any, **kwargs: Any) -> Any:
        output = encode(*args, **kwargs)
        seen.append(weakref.ref(output.last_hidden_state))
        return output

    remember.__signature__ = inspect.signature(encode)
    monkeypatch.setattr(model.base_model, own.encoders[own.modality], remember)
    with sharpv.apply(model) as handle:
        out = model.generate(**inputs_of(family, ONE), max_new_tokens=2, return_dict_in_generate=True)
    gc.collect()
    assert handle.report is not None and cache_of(out) is not None
    assert len(seen) == 1 and seen[0]() is None


def test_generate_keeps_no_graph_and_forward_does(model, family):
    inputs = inputs_of(family, ONE)
    with sharpv.apply(model) as handle:
        out = model.generate(**inputs, max_new_tokens=2, return_dict_in_generate=True)
        assert not any(layer.keys.requires_grad for layer in cache_of(out).layers if hasattr(layer, "keys"))
        assert handle.report is not None
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert any(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()


def test_gradient_checkpointing(family):
    model, inputs = tiny.make(family).train(), inputs_of(family)
    model.gradient_checkpointing_enable()
    with sharpv.apply(model) as handle:
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert handle.report.kv_bytes is None and "visual tokens" in str(handle.report)


def test_what_wraps_the_model_after_apply_survives_removal(model, family):
    inputs = inputs_of(family, ONE)
    dense = model(**inputs).logits
    handle = sharpv.apply(model)
    cover, calls = model.forward, []

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return cover(*args, **kwargs)

    model.forward = wrapper
    handle.remove()
    try:
        assert model.forward is wrapper and torch.equal(model(**inputs).logits, dense) and calls == [1]
    finally:
        del model.forward


def test_what_wrapped_the_model_before_apply_is_put_back(model, family):
    inputs, stock, calls = inputs_of(family, ONE), model.forward, []

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return stock(*args, **kwargs)

    wrapper.__signature__ = inspect.signature(stock)
    model.forward = wrapper
    try:
        with sharpv.apply(model) as handle:
            model.generate(**inputs, max_new_tokens=2)
        assert model.forward is wrapper and len(calls) == 2 and handle.report.kept < handle.report.total
    finally:
        del model.forward


def test_samples_without_a_video_have_no_similarity(model, family):
    with sharpv.apply(model, memory=tiny.HIGH_M) as handle:
        model.generate(**inputs_of(family, [PROMPTS[0], [10, 11]]), max_new_tokens=2)
    facts = json.loads(handle.report.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert all(row[1] is None for row in facts["memory"]["measured"] if row)
    assert not any(row[1] for row in facts["memory"]["forgotten"] if row) and " -" in handle.report.text()


def test_layers_with_a_sliding_window_are_left_alone(monkeypatch):
    windows = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 12}
    for name, value in {**windows, "use_sliding_window": True}.items():
        monkeypatch.setitem(tiny.TEXT, name, value)
    model = tiny.make("llava_onevision")
    inputs = inputs_of("llava_onevision", ONE)
    dense = model.generate(**inputs, max_new_tokens=3, **GREEDY)
    with sharpv.apply(model, memory=1.0) as handle:
        model.generate(**inputs, max_new_tokens=3)
    assert [len(row) for row in handle.report.measured] == [0, 1, 0, 1]
    assert handle.report.forgotten[3] == [True]
    assert handle.report.dense_kv_bytes == sum(
        t.numel() * 4 for layer in cache_of(dense).layers for t in (layer.keys, layer.values)
    )


@pytest.mark.parametrize("shift", [-1, 1])
def test_placeholders_that_do_not_match_are_named(model, family, shift):
    inputs = inputs_of(family, ONE)
    placeholder = tiny.FAMILIES[family].placeholder
    places = (inputs["input_ids"][0] == placeholder).nonzero()
    if shift > 0:
        inputs["input_ids"][0, -1] = placeholder
    else:
        inputs["input_ids"][0, places[0]] = 10
    with sharpv.apply(model), pytest.raises(ValueError, match=f"has {len(places) + shift} video placeholder tokens"):
        model.generate(**inputs, max_new_tokens=2)


def test_more_refusals(model, family):
    inputs = inputs_of(family, ONE)
    length = inputs["input_ids"].shape[1]
    with sharpv.apply(model):
        with pytest.raises(ValueError, match=f"the prompt has {length} tokens, but max_length is 20"):
            model.generate(**inputs, max_length=20)
        square = torch.ones(1, 1, length, length)
        with pytest.raises(ValueError, match=r"attention_mask must be \(1, "):
            model(**{**inputs, "attention_mask": square})
        with pytest.raises(ValueError, match="logits_to_keep as indices"):
            model(**inputs, logits_to_keep=torch.tensor([length - 1]))
        with pytest.raises(ValueError, match="already pruned by sharpv"):
            sharpv.trim(model, inputs)
    with pytest.raises(TypeError, match="counts_of must be a method such as"):
        Random(counts_of="sharpv")
    with pytest.raises(ValueError, match="weight must be a finite number"):
        SharpV(weight=float("inf"))
    with pytest.raises(ValueError, match="threshold must be a finite number"):
        SharpV(mode="manual", threshold=float("nan"))
    with pytest.raises(ValueError, match="max_tokens must be a whole number"):
        sharpv.Budget(max_tokens=11.5)


def test_a_text_config_may_know_neither_padding_nor_end():
    """Qwen3-VL's has no such attribute where its file names none."""
    model = tiny.make("qwen3_vl")
    text = model.config.get_text_config()
    for name in ("pad_token_id", "eos_token_id"):
        vars(text).pop(name, None)
    assert not hasattr(text, "eos_token_id")
    inputs = tiny.FAMILIES["qwen3_vl"].inputs([[10, Clip(1), 12], [10, 11, Clip(2), 13]])
    with sharpv.apply(model, retention=0.4) as pruning, torch.no_grad():
        assert model(**inputs).logits.isfinite().all() and pruning.report is not None
