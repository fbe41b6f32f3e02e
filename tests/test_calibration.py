"""Which layers keep the video: named ones, and those that a model's own answers need."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import sharpv
import tiny
from reference import cache_of, pruned_prompt, reference_logits
from sharpv import calibration
from sharpv.config import Config
from sharpv.kvcache import CosineThreshold, KeepLayers
from tiny import Clip

PROMPT: list[tiny.Part] = [10, 11, Clip(1), 12, 13, 14]
TEXT: list[tiny.Part] = [10, 11, 12]
NEW = 5
GREEDY = {"max_new_tokens": NEW, "do_sample": False}


def able(model) -> list[int]:
    """The layers that hold keys."""
    return [i for i, layer in enumerate(model.get_decoder().layers) if hasattr(layer, "self_attn")]


def test_a_layer_s_harm_is_what_a_dense_pass_with_its_columns_hidden_says(model, family):
    inputs = tiny.FAMILIES[family].inputs([PROMPT])
    found = sharpv.calibrate(model, [inputs], max_new_tokens=NEW, tolerance=1e-9)
    assert sharpv.Pruning.of(model) is None
    with sharpv.apply(model, memory=None):
        out = model.generate(**inputs, **GREEDY, return_dict_in_generate=True)
    keep, new = pruned_prompt(cache_of(out)).keep, out.sequences[:, inputs["input_ids"].shape[1] :]

    def log_probs(gone: list[int]) -> torch.Tensor:
        flags = [[index in gone] if index in able(model) else [] for index in range(4)]
        return reference_logits(model, inputs, keep, new, flags)[0, 1:].log_softmax(dim=-1)

    before = log_probs([])
    for index, harm in enumerate(found.harm):
        if index in able(model):
            divergence = functional.kl_div(log_probs([index]), before, log_target=True, reduction="batchmean")
            assert harm == pytest.approx(divergence.item(), rel=1e-2, abs=1e-6)
        else:
            assert harm != harm
    assert (found.answers, found.tokens) == (1, NEW - 1)
    # random layers all matter a little, and nothing is below so small a tolerance
    assert found.keep == tuple(able(model)) and found.together == 0.0


def test_a_wide_tolerance_lets_all_go_and_what_is_kept_is_what_apply_keeps(model, family):
    inputs = tiny.FAMILIES[family].inputs([PROMPT])
    found = sharpv.calibrate(model, [inputs] * 2, tolerance=100, max_new_tokens=NEW)
    assert found.keep == () and found.answers == 2
    with sharpv.apply(model, memory=KeepLayers((1,))) as handle:
        model.generate(**inputs, **GREEDY)
    kept = [index for index, row in enumerate(handle.report.forgotten) if row == [False]]
    assert kept == ([1] if 1 in able(model) else [])


def test_a_batch_of_a_video_and_a_text(model, family):
    inputs = tiny.FAMILIES[family].inputs([PROMPT, TEXT])
    with sharpv.apply(model, memory=KeepLayers((0,))) as handle:
        model.generate(**inputs, **GREEDY)
    rows = [row for row in handle.report.forgotten[1:] if row]
    assert rows and all(row == [True, False] for row in rows)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 5))
def test_as_many_go_as_stay_within_the_tolerance(harms, tolerance):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "_harm", lambda replays, gone: sum(harms[i] for i in gone))
        order = sorted(range(len(harms)), key=harms.__getitem__)
        gone, together = calibration._most([], order, tolerance)
    assert together <= tolerance and together == sum(harms[i] for i in order[: len(gone)])
    assert gone == set(order[: len(gone)])
    assert len(gone) == len(harms) or sum(harms[i] for i in order[: len(gone) + 1]) > tolerance


def test_what_cannot_be_calibrated_is_refused_and_the_model_left_alone():
    model, builder = tiny.build("qwen2_5_vl", "sdpa"), tiny.FAMILIES["qwen2_5_vl"]
    one, two, text = (builder.inputs(rows) for rows in ([PROMPT], [PROMPT, PROMPT], [TEXT]))
    for prompts, options, sentence in (
        ([], {}, "answers of at least two tokens, got none from 0 prompts"),
        ([one], {"max_new_tokens": 1}, "got none from 1 prompts"),
        ([two], {}, "one prompt at a time, got a batch of 2"),
        ([text], {}, "prompts with a video, got one without"),
        ([one], {"tolerance": 0.0}, "tolerance must be above 0, got 0.0"),
        ([one], {"retention": 2.0}, "retention"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            sharpv.calibrate(model, prompts, **options)
        assert sharpv.Pruning.of(model) is None
    with pytest.raises(ValueError, match="looks for the second stage itself, got memory=FastV"):
        sharpv.calibrate(model, [one], memory="fastv")
    with sharpv.apply(model), pytest.raises(ValueError, match="already pruned"):
        sharpv.calibrate(model, [one])


def test_layers_that_a_model_lacks_are_refused():
    model = tiny.build("qwen2_5_vl", "sdpa")
    with pytest.raises(ValueError, match=re.escape("has 4 decoder layers, counted from 0; got keep=(0, 4)")):
        sharpv.apply(model, memory=KeepLayers((4, 0)))
    assert sharpv.Pruning.of(model) is None
    for wrong in ((1, 1), (-1, 2)):
        with pytest.raises(ValueError, match="different layers, counted from 0"):
            KeepLayers(wrong)


def test_what_is_found_is_a_configuration_that_every_door_takes(tmp_path):
    model, inputs = tiny.build("qwen2_5_vl"), tiny.FAMILIES["qwen2_5_vl"].inputs([PROMPT])
    found = sharpv.calibrate(model, inputs, "sharpv:weight=0.5", retention=0.5, tolerance=0.05, max_new_tokens=NEW)
    assert found.config == Config("sharpv:weight=0.5", retention=0.5, memory=KeepLayers(found.keep))
    found.config.save(tmp_path / "mine.json")
    with sharpv.apply(model, Config.load(tmp_path / "mine.json")) as pruning:
        model.generate(**inputs, **GREEDY)
    assert [layer for layer, (gone,) in enumerate(pruning.report.forgotten) if not gone] == list(found.keep)


def test_the_memory_of_a_command_line():
    for text, stage in (
        ("off", None),
        ("0.2", CosineThreshold(0.2)),
        ("layers:24+0", KeepLayers((0, 24))),
        ("layers:keep=24+0", KeepLayers((0, 24))),
        ("layers:7", KeepLayers((7,))),
        ("layers:", KeepLayers(())),
    ):
        assert Config(memory=text).second == stage
    assert CosineThreshold(0.2).require_depth(1) is None
    for wrong in ("", "on", "layers", "layers:a", "layers:0,1", "layers:1+1"):
        with pytest.raises((ValueError, TypeError)):
            Config(memory=wrong)
