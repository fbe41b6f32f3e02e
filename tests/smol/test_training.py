"""Smol's training, with a tiny language model in the place of SmolLM2."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from sharpv.smol import replies, train
from sharpv.smol.model import build, join
from sharpv.smol.train import Run, Settings

SETTINGS = Settings(
    grounding_steps=2,
    grounding_slots=((1, 2), (2, 2)),
    text_steps=3,
    slots=((8, 2), (4, 2)),
    monitor_videos=1,
    reply_every=2,
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
    monkeypatch.setattr("sharpv.smol.model.load_language", tiny_language)
    monkeypatch.setattr(replies, "load_language", tiny_language)
    monkeypatch.setattr(replies, "REPLY_TOKENS", 3)
    monkeypatch.setattr(train, "RIDGE_FRAMES", 4)
    for name in ("EVALUATION", "TRAINING"):
        few = getattr(replies, name)[:6]
        monkeypatch.setattr(replies, name, few)
        monkeypatch.setattr(train, name, few)


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
    assert "reply_loss_before" in (tmp_path / "whole" / "log.jsonl").read_text()


def test_other_settings_do_not_continue_a_run(tmp_path):
    Run(tmp_path, SETTINGS).save()
    with pytest.raises(ValueError, match="was made with"):
        Run(tmp_path, Settings(seed=1))
