"""Memory SharpV: the measure, the decision, and a cache that forgets without the model noticing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

import sharpv
import tiny
from reference import cache_of, on, pruned_prompt, reference_logits, stock
from sharpv.config import Config
from sharpv.kvcache import Contribution, CosineThreshold, Criterion, LayerView
from sharpv.kvcache.cache import CACHE, ForgettingLayer, kv_bytes
from sharpv.kvcache.memory import trace_of
from tiny import Clip

PROMPTS: list[list[tiny.Part]] = [[10, 11, Clip(1), 12, 13, 14], [10, Clip(2, frames=4), 15]]
NEW = 5


@dataclass(frozen=True)
class Chosen(Criterion):
    """Forgets in the layers and samples that a test names."""

    name: ClassVar[str] = "chosen"
    summary: ClassVar[str] = "what a test names"

    flags: tuple[tuple[bool, ...], ...]

    def measure(self, layer: LayerView) -> Tensor:
        samples = len(self.flags[0])
        flags = torch.tensor(self.flags[layer.index], dtype=torch.float32)
        return flags.repeat_interleave(len(layer.hidden) // samples)

    def forget(self, measured: Tensor) -> Tensor:
        return measured > 0


BOTH = Chosen(((False, False), (True, True), (False, False), (True, True)))
ONE = Chosen(((True, False), (False, True), (False, False), (True, True)))
FIRST = Chosen(((False,), (True,), (True,), (True,)))


def generate(model, inputs, memory, **options):
    with sharpv.apply(model, "sharpv", memory=memory) as handle:
        out = model.generate(
            **inputs,
            max_new_tokens=NEW,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            output_scores=True,
            **options,
        )
    return out, torch.stack(out.logits, dim=1), handle.report


@pytest.mark.parametrize("chosen", [BOTH, ONE], ids=["both samples", "one sample of two"])
def test_equals_a_dense_cache_with_a_per_layer_mask(family, attention, chosen):
    model, inputs = tiny.build(family, attention), tiny.FAMILIES[family].inputs(PROMPTS)
    out, logits, report = generate(model, inputs, chosen)
    prompt = pruned_prompt(cache_of(out))
    new = out.sequences[:, inputs["input_ids"].shape[1] :]
    # layers that hold a state instead of keys are not asked
    flags = [flags if row else [] for flags, row in zip(chosen.flags, report.forgotten)]
    reference = reference_logits(model, inputs, prompt.keep, new, flags)
    torch.testing.assert_close(logits, reference, atol=1e-5, rtol=0)
    # the test has power: with nothing hidden, decoding differs by far more, and prefill not at all
    remembered = reference_logits(model, inputs, prompt.keep, new)
    assert (logits - remembered)[:, 1:].abs().max() > 1e-3
    torch.testing.assert_close(logits[:, 0], remembered[:, 0], atol=1e-5, rtol=0)


def test_a_padded_batch_equals_one_by_one(model, family):
    builder = tiny.FAMILIES[family]
    _, together, report = generate(model, builder.inputs(PROMPTS), tiny.HIGH_M)
    for row, prompt in enumerate(PROMPTS):
        _, alone, single = generate(model, builder.inputs([prompt]), tiny.HIGH_M)
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)
        assert [layer[row : row + 1] for layer in report.forgotten] == single.forgotten


def test_the_curve_is_the_mean_cosine_to_the_first_layer(model, family):
    inputs = tiny.FAMILIES[family].inputs(PROMPTS[:1])
    seen: dict[int, Tensor] = {}

    def remember(index: int, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen.setdefault(index, args[0] if args else kwargs["hidden_states"])

    hooks = [
        layer.register_forward_pre_hook(lambda _, args, kwargs, i=i: remember(i, args, kwargs), with_kwargs=True)
        for i, layer in enumerate(model.get_decoder().layers)
    ]
    out, _, report = generate(model, inputs, 0.2)
    for hook in hooks:
        hook.remove()
    visual = pruned_prompt(cache_of(out)).visual[0]
    for index, row in enumerate(report.measured):
        if not row:
            assert hasattr(model.get_decoder().layers[index], "linear_attn")
            continue
        (value,) = row
        cosine = torch.cosine_similarity(seen[index][0, visual], seen[0][0, visual], dim=-1)
        assert value == pytest.approx(cosine.mean().item(), abs=1e-5)
    assert report.measured[0] in ([], [pytest.approx(1.0, abs=1e-5)])
    assert report.forgotten == [[value < 0.2 for value in row] for row in report.measured]


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "padded batch"])
@pytest.mark.parametrize("rows", [1, 2])
def test_contribution_equals_whole_attention_without_the_visual_keys(family, attention, prompts, rows):
    model, inputs = tiny.build(family, attention), tiny.FAMILIES[family].inputs(prompts)
    calls: list[tuple[dict, Tensor]] = []
    layers = [layer for layer in model.get_decoder().layers if hasattr(layer, "self_attn")]
    hooks = [
        layer.self_attn.register_forward_hook(
            lambda _, args, kwargs, out: calls.append((kwargs, out[0])), with_kwargs=True
        )
        for layer in layers
    ]
    hidden: list[Tensor] = []
    hooks += [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: hidden.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
        for layer in layers
    ]
    with sharpv.apply(model, memory=Contribution(threshold=1e-9, rows=rows)) as handle:
        out = model(**inputs, use_cache=True)
    for hook in hooks:
        hook.remove()
    prompt = pruned_prompt(cache_of(out))
    length = prompt.visual.shape[1]
    unseen = prompt.visual | (prompt.inputs["attention_mask"] == 0)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    allowed = (causal & ~unseen[:, None]) | torch.eye(length, dtype=torch.bool)
    mask = allowed[:, None] if attention != "eager" else torch.where(allowed, 0.0, torch.finfo().min)[:, None]
    measured = [row for row in handle.report.measured if row]
    calls = [call for call in calls if call[0]["hidden_states"].shape[1] == length]
    assert len(measured) == len(layers) == len(calls) and not any(map(any, handle.report.forgotten))
    for layer, (kwargs, attended), entering, row in zip(layers, calls, hidden, measured):
        blind = layer.self_attn(**{**kwargs, CACHE: None, "attention_mask": mask})[0]
        expected = (attended - blind)[:, -rows:].norm(dim=-1) / entering[:, -rows:].norm(dim=-1)
        torch.testing.assert_close(torch.tensor(row), expected.mean(dim=1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("criterion", [Contribution(relative=0.5), Contribution(kv_budget=0.5)])
def test_contributions_are_compared_with_each_other(model, family, criterion):
    inputs = tiny.FAMILIES[family].inputs(PROMPTS)
    _, together, report = generate(model, inputs, criterion)
    measured = torch.tensor([row for row in report.measured if row])
    assert [row for row in report.forgotten if row] == criterion.forget(measured).tolist()
    for row, prompt in enumerate(PROMPTS):
        _, alone, _ = generate(model, tiny.FAMILIES[family].inputs([prompt]), criterion)
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)
    # decoding is that of the layers and samples that were named
    flags = iter(report.forgotten)
    named = Chosen(tuple(tuple(row) if row else (False, False) for row in flags))
    _, logits, same = generate(model, inputs, named)
    assert torch.equal(logits, together) and same.kv_bytes == report.kv_bytes


def test_contribution_s_rules_by_hand():
    measured = torch.tensor([[0.4, 0.1], [0.1, float("nan")], [0.3, 0.2], [0.4, 0.05]])
    low = [[False, True], [True, False], [False, False], [False, True]]
    assert Contribution(threshold=0.15).forget(measured).tolist() == low
    relative = [[False, False], [True, False], [False, False], [False, False]]
    assert Contribution(relative=0.5).forget(measured).tolist() == relative
    half = Contribution(kv_budget=0.5).forget(measured[:, :1])
    assert half[:, 0].tolist() == [False, True, True, False]
    least = Contribution(kv_budget=0.01).forget(measured[:, :1])
    assert least[:, 0].tolist() == [False, True, True, True]  # one layer stays; a tie goes to the lower


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({}, "exactly one of threshold, relative, kv_budget, above 0; got {}"),
        ({"threshold": 0.1, "relative": 0.2}, "exactly one of threshold, relative, kv_budget"),
        ({"kv_budget": 1.5}, "kv_budget must lie in (0, 1], got 1.5"),
        ({"threshold": -0.1}, "threshold must be above 0, got -0.1"),
        ({"threshold": 0.1, "rows": 0}, "rows must be a whole number of at least 1, got 0"),
    ],
)
def test_contribution_refuses(wrong, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Contribution(**wrong)


def test_bytes_are_really_freed(model, family):
    inputs = tiny.FAMILIES[family].inputs(PROMPTS[:1])
    out, _, report = generate(model, inputs, FIRST)
    whole, _, kept = generate(model, inputs, None)
    cache, visual = cache_of(out), report.kept
    length = out.sequences.shape[1] - 1 - pruned_prompt(cache).removed
    for index, layer in enumerate(cache.layers):
        if not report.forgotten[index]:  # it holds a state
            continue
        stored = length - visual * FIRST.flags[index][0]
        assert layer.keys.shape[2] == layer.values.shape[2] == stored
        assert layer.keys.untyped_storage().nbytes() == layer.keys.numel() * 4
        assert layer.get_seq_length() == length
    layers = [layer for index, layer in enumerate(cache.layers) if report.forgotten[index]]
    assert report.kv_bytes == kv_bytes(cache) == sum(t.numel() * 4 for x in layers for t in (x.keys, x.values))
    assert kept.kv_bytes == kv_bytes(cache_of(whole)) > report.kv_bytes
    assert report.dense_kv_bytes == kept.dense_kv_bytes
    # and the dense figure is what a dense run stores
    dense = model.generate(**stock(inputs), max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True)
    assert report.dense_kv_bytes == kv_bytes(cache_of(dense))


def test_three_retentions(model, family):
    _, _, report = generate(model, tiny.FAMILIES[family].inputs(PROMPTS[:1]), FIRST)
    assert report.retention == report.kept / tiny.FAMILIES[family].tokens_of_frames(PROMPTS[0][2])
    holding = sum(not any(row) for row in report.forgotten)
    assert report.layer_retention == pytest.approx(report.retention * holding / 4)
    assert report.kv_retention == report.kv_bytes / report.dense_kv_bytes


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "padded batch"])
def test_beams(model, family, prompts):
    inputs = tiny.FAMILIES[family].inputs(prompts)
    chosen = Chosen(tuple(flags[: len(prompts)] for flags in ONE.flags))
    out, _, _ = generate(model, inputs, chosen, num_beams=3, num_return_sequences=2)
    assert len(out.sequences) == 2 * len(prompts)
    for row, prompt in enumerate(prompts):
        single = Chosen(tuple(flags[row : row + 1] for flags in chosen.flags))
        alone, _, _ = generate(
            model, tiny.FAMILIES[family].inputs([prompt]), single, num_beams=3, num_return_sequences=2
        )
        new = slice(-NEW, None)
        assert torch.equal(out.sequences[2 * row : 2 * row + 2, new], alone.sequences[:, new])
        torch.testing.assert_close(
            out.sequences_scores[2 * row : 2 * row + 2], alone.sequences_scores, atol=1e-5, rtol=0
        )


class TestForgettingLayer:
    """The cache layer alone, against a plain one."""

    def layer(
        self, batch: int = 2, length: int = 6, forget: list[list[int]] | None = None, prompt: int = 6
    ) -> ForgettingLayer:
        layer = ForgettingLayer()
        keys = torch.arange(batch * length, dtype=torch.float32).view(batch, 1, length, 1).repeat(1, 2, 1, 3)
        layer.update(keys, -keys)
        if forget is not None:
            entries = torch.zeros(batch, prompt, dtype=torch.bool)
            for row, columns in enumerate(forget):
                entries[row, columns] = True
            counts = entries.sum(dim=1)
            layer.forget(entries, int(counts.min()), int(counts.max()))
        return layer

    def test_forgets_in_order_and_aligns_to_the_right(self):
        layer = self.layer(forget=[[1, 2], [3]])
        assert layer.keys[:, 0, :, 0].tolist()[0][1:] == [0, 3, 4, 5]
        assert layer.keys[:, 0, :, 0].tolist()[1] == [6, 7, 8, 10, 11]
        assert torch.equal(layer.values, -layer.keys)
        assert layer.columns.tolist() == [[-1, 0, 3, 4, 5], [0, 1, 2, 4, 5]]
        assert layer.get_seq_length() == 6 and layer.get_mask_sizes(2) == (8, 0)

    def test_nothing_to_forget_leaves_a_plain_layer(self):
        layer = self.layer(forget=[[], []])
        assert layer.columns is None and layer.keys.shape[2] == 6

    def test_grows_after_forgetting(self):
        layer = self.layer(forget=[[1, 2], [3]])
        layer.update(torch.full((2, 2, 2, 3), 90.0), torch.full((2, 2, 2, 3), 90.0))
        assert layer.columns.tolist() == [[-1, 0, 3, 4, 5], [0, 1, 2, 4, 5]]  # what came later is all there
        assert layer.get_seq_length() == 8 and layer.keys.shape[2] == 7
        seen = torch.ones(2, 9).bool()
        seen[:, 7] = False
        narrow = layer.narrow(seen, 1, "flash_attention_2", torch.float32)
        assert narrow.tolist() == [[False, *[True] * 5, False, True], [True] * 6 + [False, True]]

    def test_masks(self):
        layer = self.layer(forget=[[1, 2], [3]])
        seen = torch.tensor([[1, 1, 1, 1, 0, 1, 1], [0, 1, 1, 1, 1, 1, 1]]).bool()
        expected = [[False, True, True, False, True, True], [False, True, True, True, True, True]]
        assert layer.narrow(seen, 1, "flash_attention_2", torch.float32).tolist() == expected
        assert layer.narrow(seen[:, None, None], 1, "sdpa", torch.float32)[:, 0, 0].tolist() == expected
        additive = torch.zeros(2, 1, 1, 7).masked_fill(~seen[:, None, None], torch.finfo(torch.float32).min)
        assert (layer.narrow(additive, 1, "eager", torch.float32)[:, 0, 0] == 0).tolist() == expected
        stored = [[False, True, True, True, True, True], [True] * 6]
        assert layer.narrow(None, 1, "sdpa", torch.float32)[:, 0, 0].tolist() == stored
        assert (layer.narrow(None, 1, "eager", torch.float32)[:, 0, 0] == 0).tolist() == stored
        assert layer.narrow(None, 1, "flash_attention_2", torch.float32).tolist() == stored

    def test_no_mask_is_needed_when_all_rows_store_alike(self):
        assert self.layer(forget=[[1, 2], [1, 3]]).narrow(None, 1, "sdpa", torch.float32) is None

    def test_batch_operations_carry_the_columns(self):
        layer = self.layer(forget=[[1, 2], [3]])
        rows = layer.columns.tolist()
        layer.reorder_cache(torch.tensor([1, 0]))
        assert layer.columns.tolist() == rows[::-1] and layer.keys[0, 0, 0, 0] == 6
        layer.batch_repeat_interleave(2)
        assert layer.columns.tolist() == [rows[1], rows[1], rows[0], rows[0]] and len(layer.keys) == 4
        layer.batch_select_indices(torch.tensor([3]))
        assert layer.columns.tolist() == [rows[0]] and len(layer.keys) == 1

    def test_crop(self):
        layer = self.layer(forget=[[1, 2], [3]])
        layer.update(torch.ones(2, 2, 3, 3), torch.ones(2, 2, 3, 3))
        layer.crop(-2)
        assert layer.get_seq_length() == 7 and layer.keys.shape[2] == 6
        assert layer.narrow(None, 1, "flash_attention_2", torch.float32).shape == (2, 7)
        layer.crop(0)
        assert layer.get_seq_length() == 7
        with pytest.raises(ValueError, match="cannot crop 2 of 7 tokens: the visual entries of the prompt's 6 tokens"):
            layer.crop(-2)
        longer = self.layer(forget=[[1, 2], [3]], prompt=5)
        longer.crop(-1)
        assert longer.columns.tolist() == [[-1, 0, 3, 4], [0, 1, 2, 4]] and longer.described == 5
        plain = self.layer()
        plain.crop(-4)
        assert plain.get_seq_length() == plain.keys.shape[2] == 2

    def test_reset(self):
        layer = self.layer(forget=[[1, 2], [3]])
        layer.reset()
        assert layer.get_seq_length() == 0 and layer.columns is None and layer.keys is None
        layer.update(torch.ones(2, 2, 3, 3), torch.ones(2, 2, 3, 3))
        assert layer.get_seq_length() == 3


def test_a_user_s_empty_dynamic_cache_learns_to_forget(model, family):
    inputs = tiny.FAMILIES[family].inputs(PROMPTS[:1])
    for cache in (DynamicCache(), DynamicCache(config=model.config)):
        with sharpv.apply(model, memory=FIRST) as handle:
            model.generate(**inputs, **on(cache), max_new_tokens=2)
        assert len(cache.layers) == tiny.LAYERS and trace_of(cache) is not None
        assert handle.report.kv_bytes == kv_bytes(cache) < handle.report.dense_kv_bytes


def test_criteria():
    assert Config().second is None and Config(memory="off").second is None
    assert Config(memory=0.2).second == CosineThreshold(0.2) == Config(memory=CosineThreshold()).second
    assert Config(memory=ONE).second is ONE
    for wrong in (True, CosineThreshold):
        with pytest.raises(TypeError, match="memory must be a name or an instance of a second stage"):
            Config(memory=wrong)
    with pytest.raises(ValueError, match="must lie in \\[-1, 1\\], got 2"):
        Config(memory=2)


def test_static_caches_and_chunks_are_refused(model, family):
    inputs = tiny.FAMILIES[family].inputs(PROMPTS[:1])
    with sharpv.apply(model, memory=0.2):
        with pytest.raises(ValueError, match="got cache_implementation='static': apply with memory=None"):
            model.generate(**inputs, cache_implementation="static", max_new_tokens=2)
        with pytest.raises(ValueError, match="memory needs the prefill in one piece"):
            model.generate(**inputs, prefill_chunk_size=8, max_new_tokens=2)
