"""PLLaVA's published layout: old names, LoRA deltas beside the weights, and features averaged over space and time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import checkpoints
import sharpv
import tiny
from sharpv.models.pllava import load_pllava
from tiny import Clip

RANK, ALPHA = 2, 4.0


def published(folder: Path) -> tuple[Path, dict[str, Tensor], dict[str, Tensor]]:
    """A small checkpoint in the published layout; the plain weights and the deltas of its query projections."""
    model = tiny.make("pllava")
    words = checkpoints.PROCESSORS["pllava"]().tokenizer
    model.resize_token_embeddings(len(words))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    deltas, old = {}, {}
    for name, tensor in weights.items():
        where = name.replace("model.vision_tower", "vision_tower.vision_model").replace(
            "model.multi_modal_projector", "multi_modal_projector"
        )
        where = where.replace("model.language_model", "language_model.base_model.model.model")
        where = where.replace("lm_head", "language_model.base_model.model.lm_head")
        if name.endswith("q_proj.weight") and "language_model" in name:
            a, b = torch.randn(RANK, tensor.shape[1]) / 8, torch.randn(tensor.shape[0], RANK) / 8
            deltas[name] = b @ a
            stem = where.removesuffix(".weight")
            old |= {f"{stem}.lora_A.default.weight": a, f"{stem}.lora_B.default.weight": b}
            where = f"{stem}.base_layer.weight"
        old[where] = tensor.contiguous()
    half = len(old) // 2
    save_file(dict(list(old.items())[:half]), folder / "model-00001-of-00002.safetensors")
    save_file(dict(list(old.items())[half:]), folder / "model-00002-of-00002.safetensors")
    config = {**model.config.to_dict(), "pooling_method": "avg", "frame_shape": [6, 6], "num_frames": 4}
    (folder / "config.json").write_text(json.dumps(config, default=str))
    words.save_pretrained(folder)
    return folder, weights, deltas


def test_a_published_checkpoint_loads_with_its_deltas_merged(tmp_path):
    folder, weights, deltas = published(tmp_path)
    model, processor = load_pllava(folder, lora_alpha=ALPHA, dtype=torch.float32)
    assert len(deltas) == tiny.LAYERS
    for name, tensor in model.state_dict().items():
        expected = weights[name] + ALPHA / RANK * deltas[name] if name in deltas else weights[name]
        torch.testing.assert_close(tensor, expected)
    frames = torch.randint(0, 255, (1, 4, 3, 40, 60), dtype=torch.uint8)
    inputs = processor(text=["USER: <|image|> What? ASSISTANT:"], videos=frames, return_tensors="pt")
    assert int((inputs["input_ids"] == tiny.IMAGE).sum()) == 36
    model.generation_config.pad_token_id = tiny.PAD
    with sharpv.apply(model) as handle:
        model.generate(**inputs, max_new_tokens=2)
    assert handle.report.total == 36


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path):
    folder, _, _ = published(tmp_path)
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="is no whole PLLaVA: .* weights lack or are unknown"):
        load_pllava(folder)


def test_features_are_averages_of_boxes():
    model = tiny.make("pllava")
    pixels = tiny.FAMILIES["pllava"].inputs([[Clip(1, frames=8)]])["pixel_values_videos"]
    images = torch.stack(list(model.model.get_image_features(pixels[0], return_dict=True).pooler_output))
    (pooled,) = model.model.get_video_features(pixels).pooler_output
    boxes = images.view(4, 2, 3, 2, 3, 2, -1).mean((1, 3, 5)).flatten(0, 2)
    torch.testing.assert_close(pooled, boxes)
    with pytest.raises(ValueError, match="averages over time down to 4 frames, got 3: sample more"):
        model.model.get_video_features(pixels[:, :3])
