"""The dozen invariants: every method on two families, two methods on every family."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import sharpv
import tiny
from reference import cache_of, pruned_prompt, reference_logits, stock, survivors
from sharpv import Config
from sharpv.models import find_family
from tiny import Clip
from variants import CONFIGS

PROMPTS: list[list[tiny.Part]] = [[10, 11, Clip(1), 12, 13, 14], [10, Clip(2), 15]]
NEW = 4

pytestmark = pytest.mark.filterwarnings("ignore:.*requires_grad.*")


FULL = ("llava_onevision", "qwen2_5_vl")
"""The families on which every method runs: one with 1-D positions and features in one tensor, one with multimodal RoPE
and a list of features. A method gives a keep mask and nothing else, so what it could do to a family it does to one of
these two; what a family could do to a mask shows with the two methods that run on all."""
ON_ALL = (CONFIGS[0], CONFIGS[-1])
KEEPING = [config for config in CONFIGS if not config.first.merges("1d")]
"""What merges others into its survivors equals no masked run; see methods/test_merging.py."""
CASES = [(config, name) for config in KEEPING for name in FULL] + [
    (config, name) for config in ON_ALL for name in tiny.FAMILIES if name not in FULL
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"method", "family"} <= set(metafunc.fixturenames):
        metafunc.parametrize(("method", "family"), CASES, ids=[f"{config}-{name}" for config, name in CASES])
    elif "method" in metafunc.fixturenames:
        # FastVID's densities are exp(-d^2) of the features as they are, in its paper too
        scaled = [config for config in CONFIGS if config.first.name != "fastvid"]
        metafunc.parametrize("method", scaled, ids=map(str, scaled))


def run(model, inputs, method=None, **options) -> tuple[Any, Tensor]:
    """Greedy generation, pruned or not: the output and its logits (B, NEW, V)."""
    generate = dict(max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True, output_logits=True)
    if method is None:
        out = model.generate(**stock(inputs), **generate)
    else:
        with sharpv.apply(model, method, **options) as handle:
            out = model.generate(**inputs, **generate)
        out.report = handle.report
    return out, torch.stack(out.logits, dim=1)


def test_keep_all_is_bitwise_the_dense_run(model, family, method):
    inputs = tiny.FAMILIES[family].inputs(PROMPTS)
    dense, dense_logits = run(model, inputs)
    pruned, logits = run(model, inputs, Config(method.first, retention=1.0))
    assert torch.equal(logits, dense_logits)
    assert torch.equal(pruned.sequences, dense.sequences)


def test_pruned_equals_dense_with_the_dropped_tokens_masked(family, attention, method):
    model = tiny.build(family, attention)
    inputs = tiny.FAMILIES[family].inputs(PROMPTS)
    out, logits = run(model, inputs, method)
    keep = pruned_prompt(cache_of(out)).keep
    assert keep.sum() < inputs["attention_mask"].sum()
    new = out.sequences[:, inputs["input_ids"].shape[1] :]
    reference = reference_logits(model, inputs, keep, new)
    torch.testing.assert_close(logits, reference, atol=1e-5, rtol=0)
    # the test has power: the unpruned run differs by far more
    unpruned = reference_logits(model, inputs, inputs["attention_mask"].bool(), new)
    assert (logits - unpruned).abs().max() > 1e-2


def test_a_padded_batch_equals_one_by_one(model, family, method):
    builder = tiny.FAMILIES[family]
    _, together = run(model, builder.inputs(PROMPTS), method)
    for row, prompt in enumerate(PROMPTS):
        _, alone = run(model, builder.inputs([prompt]), method)
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)


def test_remove_restores_bitwise(model, family, method):
    inputs = tiny.FAMILIES[family].inputs(PROMPTS)
    _, before_logits = run(model, inputs)  # transformers leaves marks of its own on the first run
    before = _marks(model)
    run(model, inputs, method, memory=tiny.HIGH_M)
    assert _marks(model) == before
    _, after_logits = run(model, inputs)
    assert torch.equal(before_logits, after_logits)


def _marks(model) -> dict[str, Any]:
    """Every attribute and hook of every module."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    return {
        name: (set(vars(module)), [dict(getattr(module, hook)) for hook in hooks])
        for name, module in model.named_modules()
    }


@pytest.mark.parametrize("retention", [0.05, 0.25, 0.5, 0.99])
def test_exact_count_where_a_count_was_asked(model, family, method, retention):
    inputs = tiny.FAMILIES[family].inputs([[10, Clip(1, frames=5), 12]])
    out, _ = run(model, inputs, Config(method.first, retention=retention))
    assert out.report.kept == max(1, round(retention * tiny.FAMILIES[family].tokens_of_frames(Clip(1, frames=5))))


def test_order_is_preserved(model, family, method):
    inputs = tiny.FAMILIES[family].inputs(PROMPTS)
    out, _ = run(model, inputs, method)
    prompt = pruned_prompt(cache_of(out))
    placeholder = tiny.FAMILIES[family].placeholder
    for row in range(len(PROMPTS)):
        full = inputs["input_ids"][row][prompt.keep[row]]
        assert torch.equal(prompt.inputs["input_ids"][row][prompt.inputs["attention_mask"][row].bool()], full)
        assert (full == placeholder).sum() >= 1
    # features of the survivors are the rows that the mask names, in their order
    own = find_family(model)
    rows = torch.cat(list(own.encode(model, own.modality, inputs).pooler_output)).flatten(0, -2).chunk(len(PROMPTS))
    for (video, carried), features in zip(survivors(model, inputs, method), rows):
        assert torch.equal(carried, video.layout.split(features)[video.keep])


def test_deterministic(model, family, method):
    inputs = tiny.FAMILIES[family].inputs(PROMPTS)
    (first, first_logits), (second, second_logits) = run(model, inputs, method), run(model, inputs, method)
    assert torch.equal(first.sequences, second.sequences)
    assert torch.equal(first_logits, second_logits)


@pytest.mark.parametrize("scale", [1e-3, 0.37, 5.0, 1e3])
def test_features_scaled_by_a_constant_change_nothing(method, scale):
    features = torch.randn(6, 16, 32, generator=torch.Generator().manual_seed(5))
    chosen, scaled = (method.first.select(video, method.budget).keep for video in (features, features * scale))
    assert torch.equal(chosen, scaled)


def test_import_changes_no_global():
    code = """
import sys, torch, transformers
from transformers.models.qwen3_vl import modeling_qwen3_vl
from transformers import cache_utils, masking_utils
from transformers.generation import utils
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel as OneVision
watched = [torch.nn.Module, torch.Tensor, transformers.PreTrainedModel, utils.GenerationMixin, utils, OneVision,
    cache_utils, cache_utils.DynamicCache, cache_utils.DynamicLayer, masking_utils,
    modeling_qwen3_vl.Qwen3VLForConditionalGeneration]
def picture():
    attention = dict(transformers.AttentionInterface._global_mapping)
    return [dict(vars(thing)) for thing in watched] + [attention, torch.get_num_threads(), torch.get_default_dtype()]
before = picture()
import sharpv
assert picture() == before
assert not {"typer", "av", "rich"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_video_in_the_prompt_changes_nothing(model, family, method):
    inputs = tiny.FAMILIES[family].inputs([[10, 11, 12, 13], [10, 14]])
    dense, dense_logits = run(model, inputs)
    pruned, logits = run(model, inputs, method, memory=tiny.HIGH_M)
    assert torch.equal(logits, dense_logits) and torch.equal(pruned.sequences, dense.sequences)
    assert pruned.report is None


def test_eager_equals_sdpa(family, method):
    inputs = tiny.FAMILIES[family].inputs(PROMPTS)
    _, eager = run(tiny.build(family, "eager"), inputs, method, memory=tiny.HIGH_M)
    _, sdpa = run(tiny.build(family, "sdpa"), inputs, method, memory=tiny.HIGH_M)
    torch.testing.assert_close(eager, sdpa, atol=1e-5, rtol=0)


def test_two_videos_are_pruned_independently(model, family, method):
    builder = tiny.FAMILIES[family]
    kept = {}
    for order in ((1, 2), (2, 1), (1, 3)):
        inputs = builder.inputs([[10, Clip(order[0]), 11, Clip(order[1]), 12]])
        out, _ = run(model, inputs, method)
        videos = pruned_prompt(cache_of(out)).videos
        kept[order] = {seed: video.keep for seed, video in zip(order, videos)}
    assert torch.equal(kept[1, 2][1], kept[2, 1][1])
    assert torch.equal(kept[1, 2][2], kept[2, 1][2])
    assert torch.equal(kept[1, 2][1], kept[1, 3][1])
