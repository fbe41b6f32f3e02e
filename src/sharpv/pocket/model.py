"""The pocket model: transformers' own LLaVA-OneVision architecture at about 1.3 million parameters.

Nothing here is a new architecture: this module holds the sizes, the start values that make training from
scratch cheap, the visual features, and saving.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .drawing import SIZE
from .tokens import BOS, EOS, IMAGE, PAD, PATCH, VIDEO, build_processor, vocabulary

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration

FEATURE_RMS = 0.3
"""Scale of the visual tokens that the text model is trained on."""


@dataclass(frozen=True)
class PocketSize:
    """Sizes of the vision tower and the text model."""

    vision_hidden: int = 96
    vision_layers: int = 3
    vision_heads: int = 3
    vision_mlp: int = 192
    text_hidden: int = 128
    text_layers: int = 5
    text_heads: int = 4
    text_mlp: int = 320


DEFAULT_SIZE = PocketSize()


def build_model(size: PocketSize = DEFAULT_SIZE) -> LlavaOnevisionForConditionalGeneration:
    """A new model; draws from torch's global generator, so seed that first."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        Qwen2Config,
        SiglipVisionConfig,
    )

    words = vocabulary()
    vision = SiglipVisionConfig(
        hidden_size=size.vision_hidden,
        intermediate_size=size.vision_mlp,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.vision_heads,
        image_size=SIZE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(words),
        hidden_size=size.text_hidden,
        intermediate_size=size.text_mlp,
        num_hidden_layers=size.text_layers,
        num_attention_heads=size.text_heads,
        num_key_value_heads=size.text_heads,
        max_position_embeddings=4096,
        bos_token_id=words.index(BOS),
        eos_token_id=words.index(EOS),
        pad_token_id=words.index(PAD),
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.index(IMAGE),
        video_token_index=words.index(VIDEO),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[SIZE, SIZE]],
        tie_word_embeddings=False,
    )
    model = LlavaOnevisionForConditionalGeneration(config)
    _set_generation(model)
    _start_vision(model)
    _start_text(model)
    return model


def _set_generation(model: LlavaOnevisionForConditionalGeneration) -> None:
    """Greedy decoding that stops at <eos> and never emits a placeholder."""
    words = vocabulary()
    generation = model.generation_config
    generation.bos_token_id = words.index(BOS)
    generation.eos_token_id = words.index(EOS)
    generation.pad_token_id = words.index(PAD)
    generation.suppress_tokens = [words.index(VIDEO), words.index(IMAGE)]
    generation.do_sample = False
    generation.max_new_tokens = 80


@torch.no_grad()
def _start_vision(model: LlavaOnevisionForConditionalGeneration) -> None:
    """A 2-D sinusoidal position table, and queries equal to keys in two layers: attention starts out local."""
    tower = model.model.vision_tower
    tower = getattr(tower, "vision_model", tower)
    table = tower.embeddings.position_embedding.weight
    side, width = SIZE // PATCH, table.shape[1]
    frequency = 1 / torch.logspace(np.log10(1.2), np.log10(20), width // 4)
    angle = torch.arange(float(side))[:, None] * frequency
    wave = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
    across, down = wave[None].expand(side, side, -1), wave[:, None].expand(side, side, -1)
    table.copy_(0.4 * torch.stack([across, down], -1).reshape(side * side, width))
    for layer in list(tower.encoder.layers)[:2]:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            projection.weight.copy_(torch.eye(width) + 0.03 * torch.randn(width, width))
            projection.bias.zero_()


@torch.no_grad()
def _start_text(model: LlavaOnevisionForConditionalGeneration) -> None:
    text = model.model.language_model
    depth = len(text.layers)
    for layer in text.layers:
        for name, weight in layer.named_parameters():
            if weight.dim() == 2:
                writes = "o_proj" in name or "down_proj" in name
                nn.init.normal_(weight, std=0.05 * ((2 * depth) ** -0.5 if writes else 1.0))
    nn.init.normal_(text.embed_tokens.weight, std=0.1)
    nn.init.normal_(model.lm_head.weight, std=0.05)
    nn.init.normal_(model.model.image_newline, std=0.1)


def pixel_values(video: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 frames (n, 112, 112, 3) -> what the processor makes of them: float (n, 3, 112, 112) in -1..1."""
    return torch.from_numpy(video).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def frame_features(model: LlavaOnevisionForConditionalGeneration, pixels: Tensor) -> Tensor:
    """(n, 3, 112, 112) -> (n, 49, hidden): what ``get_video_features`` gives, less the newline token."""
    hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
    return model.model.apply_pooling(model.model.multi_modal_projector(hidden))


@torch.no_grad()
def scale_features(model: LlavaOnevisionForConditionalGeneration, pixels: Tensor) -> None:
    """Rescale the projector so that the visual tokens of these frames have the rms FEATURE_RMS."""
    factor = FEATURE_RMS / frame_features(model, pixels).pow(2).mean().sqrt()
    last = model.model.multi_modal_projector.linear_2
    last.weight.mul_(factor)
    last.bias.mul_(factor)


def export(model: LlavaOnevisionForConditionalGeneration, directory: str | Path) -> None:
    """Save model (float16) and processor so that the Auto classes load them; replaces ``directory`` at once."""
    target = Path(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    state = {name: tensor.detach().cpu().half() for name, tensor in model.state_dict().items()}
    clone = type(model)(model.config).half()
    clone.load_state_dict(state)
    clone.generation_config = model.generation_config
    clone.save_pretrained(fresh)
    build_processor().save_pretrained(fresh)
    fresh.chmod(0o755)
    old = target.with_name(f".{target.name}-old-{os.getpid()}")
    if target.exists():
        target.replace(old)
    fresh.replace(target)
    shutil.rmtree(old, ignore_errors=True)
