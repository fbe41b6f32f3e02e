"""Smol's training, with a tiny language model in the place of SmolLM2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from sharpv_smol.model import build, deltas, join
from training.smol import replies, start, train
from training.smol.train import Run, Settings

SETTINGS = Settings(
    grounding_steps=2,
    grounding_slots=((1, 2), (2, 2)),
    text_steps=3,
    slots=((8, 2), (4, 2)),
    monitor_videos=1,
    reply_every=2,
    reply_batch=3,
    apart_steps=2,
    apart_replies=8,
)


def tiny_language() -> LlamaForCausalLM:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=128, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr("sharpv_smol.model.load_language", tiny_language)
    monkeypatch.setattr(replies, "load_language", tiny_language)
    monkeypatch.setattr(replies, "REPLY_TOKENS", 3)
    monkeypatch.setattr(start, "RIDGE_FRAMES", 4)
    monkeypatch.setattr(replies, "IMAGINED", 8)
    monkeypatch.setattr(replies, "FIRST_WORDS", ("What", "Name"))
    monkeypatch.setattr(replies, "PROMPT_TOKENS", 4)
    few = replies.EVALUATION[:6]
    monkeypatch.setattr(replies, "EVALUATION", few)
    monkeypatch.setattr(train, "EVALUATION", few)


def trained(out: Path, stop: int = 0) -> Run:
    if stop:
        run = Run(out, SETTINGS)
        for _ in range(stop):
            assert run.step < run.current.steps or run.next_stage()
            run.one_step()
        run.save()
    run = Run(out, SETTINGS)
    assert run.train()
    return run


def test_a_killed_run_continues_bit_for_bit_and_exports_what_ships(tmp_path):
    run = trained(tmp_path / "whole")
    whole, pieces = run.learned()["trained"], trained(tmp_path / "pieces", stop=3).learned()["trained"]
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)
    assert {name.split(".")[1] for name in whole} == {"language_model", "multi_modal_projector", "image_newline"}
    # nothing of the tower or of the language model's own weights has moved, and every delta has
    assert all(part.abs().max() > 0 for name, part in whole.items() if name.endswith(".b"))
    own = load_file(tmp_path / "whole" / "deltas.safetensors")
    model = build(train.pocket.load()[0])
    join(model, own)
    for name, parameter in run.model.model.vision_tower.named_parameters():
        assert torch.equal(parameter.half(), own[f"vision_tower.{name}"])
    logged = (tmp_path / "whole" / "log.jsonl").read_text()
    assert "reply_loss_before" in logged and f'"text_steps": {SETTINGS.text_steps}' in logged


def test_the_projector_learns_more_slowly(tmp_path):
    run = Run(tmp_path, SETTINGS)
    run.one_step()
    fast, slow = run.current.optimiser.param_groups
    assert slow["lr"] == pytest.approx(SETTINGS.projector_rate * fast["lr"]) and fast["lr"] > 0
    seeing = {id(p) for p in run.model.model.multi_modal_projector.parameters()}
    assert seeing < {id(p) for p in slow["params"]} and not seeing & {id(p) for p in fast["params"]}


def test_a_run_goes_on_from_what_another_exported(tmp_path):
    trained(tmp_path / "first")
    exported = tmp_path / "first" / "deltas.safetensors"
    run = Run(tmp_path / "second", replace(SETTINGS, grounding_steps=0), start=exported)
    before = [log.read_text().split('"reply_loss_before": ')[1].split(",")[0] for log in tmp_path.glob("*/log.jsonl")]
    assert len(before) == 2 and len(set(before)) == 1  # the language model's own, whatever the run starts from
    own = deltas(run.model)
    assert all(torch.equal(tensor, own[name]) for name, tensor in load_file(exported).items())
    assert run.train() and isinstance(run.current, train.SmolStage) and run.step == SETTINGS.text_steps
    save_file({"vision_tower.nothing": torch.zeros(1)}, exported)
    with pytest.raises(ValueError, match="these are not smol's weights"):
        Run(tmp_path / "third", SETTINGS, start=exported)


def test_the_end_of_a_run_sets_its_deltas_apart_from_text(tmp_path):
    run = Run(tmp_path, replace(SETTINGS, apart=1e3))  # the conversations it is measured on are among those it reads
    with torch.no_grad():
        for name, part in run.model.named_parameters():
            if name.endswith(".b"):
                part.normal_(std=0.1)
    kept = deltas(run.model)

    def drift() -> float:
        return float(run.replies.drift(run.model, np.random.default_rng(0), 4).detach())

    before = drift()
    run.next_stage()
    run.set_apart()
    assert drift() < before / 2
    for name, tensor in deltas(run.model).items():
        assert torch.equal(tensor, kept[name]) != name.endswith(".a")
    assert '{"apart": 1000.0' in (tmp_path / "log.jsonl").read_text()


def test_other_settings_do_not_continue_a_run(tmp_path):
    Run(tmp_path, SETTINGS).save()
    with pytest.raises(ValueError, match="was made with"):
        Run(tmp_path, Settings(seed=1))


def test_a_quickened_model_keeps_its_deltas_in_float32_and_learns(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda layer, **options: compiled.append(options))
    run = Run(tmp_path, replace(SETTINGS, fast=True))
    exact = Run(tmp_path, SETTINGS)
    layer = run.model.model.language_model.layers[0].mlp.up_proj
    assert (layer.linear.weight.dtype, layer.a.dtype) == (torch.bfloat16, torch.float32)
    assert run.model.lm_head.weight.dtype == torch.bfloat16
    assert torch.equal(layer.a, exact.model.model.language_model.layers[0].mlp.up_proj.a)
    assert torch.equal(*(m.model.language_model.rotary_emb.inv_freq for m in (run.model, exact.model)))
    assert compiled == [{"dynamic": True}] * 2
    assert run.one_step()["loss"] == pytest.approx(exact.one_step()["loss"], rel=0.02)
    assert layer.b.abs().max() > 0


def test_drift_is_nothing_before_training_and_something_after(tmp_path):
    run = Run(tmp_path, SETTINGS)
    assert len(run.replies.imagined) > 3
    assert all(prompt.startswith(("What", "Name")) and "<" not in prompt for prompt in run.replies.imagined)
    assert all(len(reply) == 3 for reply in run.replies.imagined.values())

    def drift() -> float:
        return float(run.replies.drift(run.model, np.random.default_rng(0), 3).detach())

    assert drift() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        run.model.model.language_model.layers[0].mlp.up_proj.b.fill_(1.0)
    assert drift() > 1e-4
