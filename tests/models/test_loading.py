"""Checkpoints that lack something are refused by name, before anything is answered from random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import checkpoints
from sharpv import pocket
from sharpv.asking import load
from sharpv.cli.app import app
from sharpv.models.loading import load_checkpoint

WEIGHTS = "model.safetensors"
LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a2146' * 8}\nsize 12345\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("whole") / "model", "qwen2_5_vl")


def weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return edit


def without(part: str) -> Callable[[Path], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return weights(change)


def halved(part: str) -> Callable[[Path], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if part in name]:
            tensors[name] = tensors[name][: len(tensors[name]) // 2].clone()

    return weights(change)


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def cut(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE = {
    "a layer is missing": (without("layers.2."), r"the checkpoint lacks \S+layers\.2\..* and 9 more \(12 weights\)"),
    "one weight is missing": (without("layers.0.mlp.up_proj.weight"), r"lacks \S+layers\.0\.mlp\.up_proj\.weight$"),
    "another shape": (halved("layers.1.mlp.up_proj"), r"layers\.1\.mlp\.up_proj\.weight has another shape$"),
    "truncated": (cut, "cannot load the model"),
    "a pointer": (write(WEIGHTS, LFS), "model.safetensors is a Git LFS pointer, .*git lfs pull"),
    "empty weights": (write(WEIGHTS, ""), "cannot load the model"),
    "no JSON": (write("config.json", "{"), "cannot load the model"),
    "no model type": (write("config.json", "{}"), "cannot load the model"),
    "another model": (write("config.json", json.dumps({"model_type": "gpt2"})), "model type 'gpt2' is not supported"),
    "no processor": (lambda folder: (folder / "processor_config.json").write_text("["), "cannot load the model"),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_what_is_damaged_is_refused(whole, tmp_path, damage):
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    edit, message = DAMAGE[damage]
    edit(folder)
    with pytest.raises(ValueError, match=r"^cannot load the model '.*': ") as refused:
        load_checkpoint(folder)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match=message):
        load(folder, "cpu")


def test_what_is_whole_loads(whole, tmp_path):
    model, processor = load_checkpoint(whole)
    assert not model.training and processor.tokenizer is not None
    for family in ("llava_onevision", "internvl", "smolvlm"):  # tied weights, buffers: absent by right
        load_checkpoint(checkpoints.write(tmp_path / family, family))
    assert pocket.load()[0].device.type == "cpu"


def test_pocket_is_loaded_as_strictly(tmp_path):
    folder = Path(shutil.copytree(pocket.checkpoint_path(), tmp_path / "pocket"))
    without("layers.0.")(folder)
    with pytest.raises(ValueError, match="the checkpoint lacks"):
        pocket.load(directory=folder)


def test_a_device_without_weights_is_refused():
    with pytest.raises(ValueError, match="device 'meta' holds no weights"):
        load("pocket", "meta")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), RuntimeError("")], ids=repr
)
def test_what_fails_while_answering_is_one_sentence(error, monkeypatch):
    def answer(*_: object) -> None:
        raise error

    monkeypatch.setattr("sharpv.asking.answer", answer)
    result = CliRunner().invoke(app, ["ask", str(pocket.sample_clip()), "What?"])
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1
    assert "thinking failed: " in said and "--frames-at-once" in said and "Tried more" not in said
