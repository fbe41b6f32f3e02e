"""Models of real size with random weights, from the configurations in architectures/, and prompts for them."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from sharpv.kvcache import Criterion, LayerView
from sharpv.models import find_family

FOLDER = Path(__file__).parent / "architectures"
ARCHITECTURES = sorted(path.stem for path in FOLDER.glob("*.json"))
SIDE = 14
"""Tokens along a side of a frame, on every architecture."""
BEFORE, QUESTION = list(range(100, 114)), list(range(200, 224))


def build(name: str, device: str, dtype: str, layers: int | None = None, narrow: bool = False) -> PreTrainedModel:
    """One of :data:`ARCHITECTURES`; ``layers`` cuts both the tower and the language model to their first ones.

    ``narrow`` makes LLaVA-OneVision's layers so thin that it runs in no time: to see that a script works.
    """
    config = AutoConfig.for_model(**json.loads((FOLDER / f"{name}.json").read_text()))
    if narrow:
        for part, heads in ((config.text_config, 2), (config.vision_config, 2)):
            part.hidden_size, part.intermediate_size, part.num_attention_heads = 32, 32, heads
        config.text_config.num_key_value_heads = 1
    if layers is not None:
        for part in (config.text_config, config.vision_config):
            for depth in ("num_hidden_layers", "depth"):
                if hasattr(part, depth):
                    setattr(part, depth, min(layers, getattr(part, depth)))
        if hasattr(config.vision_config, "deepstack_visual_indexes"):
            config.vision_config.deepstack_visual_indexes = list(range(min(layers, 3)))
        if hasattr(config.vision_config, "fullatt_block_indexes"):
            config.vision_config.fullatt_block_indexes = [config.vision_config.depth - 1]
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    placeholders = [config.video_token_id, config.image_token_id]
    model.generation_config.suppress_tokens = placeholders
    return model.eval()


def prompt(model: PreTrainedModel, frames: int) -> dict[str, Any]:
    """One video of random pixels, ``SIDE`` x ``SIDE`` tokens a frame, and a question.

    ``frames`` are frames of the token grid: on Qwen two pictures each, on LLaVA-OneVision one.
    """
    config, device, size = model.config, model.device, SIDE * SIDE
    random = torch.Generator(device).manual_seed(1)
    video = config.video_token_id
    if config.model_type == "llava_onevision":
        row = [*BEFORE, *[video] * (frames * size + 1), *QUESTION]
        pixels = torch.randn(1, frames, 3, 384, 384, generator=random, device=device).to(model.dtype)
        ids = torch.tensor([row], device=device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": pixels}
    start, end = config.vision_start_token_id, config.vision_end_token_id
    if config.model_type == "qwen3_vl":  # each frame after its time
        row = [token for step in range(frames) for token in (300 + step, start, *[video] * size, end)]
    else:
        row = [start, *[video] * (frames * size), end]
    vision = config.vision_config
    patches = SIDE * vision.spatial_merge_size
    values = 3 * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.randn(frames * patches * patches, values, generator=random, device=device).to(model.dtype)
    ids = torch.tensor([[*BEFORE, *row, *QUESTION]], device=device)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": 2 * (ids == video).long(),
        "pixel_values_videos": pixels,
        "video_grid_thw": torch.tensor([[frames, patches, patches]], device=device),
    }


@contextlib.contextmanager
def without_tower(model: PreTrainedModel, output: Any) -> Iterator[None]:
    """Let the vision encoder answer at once with what it answered before."""
    name = find_family(model).encoders["video"]
    original = getattr(model.base_model, name)
    setattr(model.base_model, name, functools.wraps(original)(lambda *args, **kwargs: output))
    try:
        yield
    finally:
        delattr(model.base_model, name)


def stub_tower(model: PreTrainedModel) -> PreTrainedModel:
    """Let the vision encoder answer with random features at once, for good: its time would hide what is measured."""
    name, width = find_family(model).encoders["video"], model.config.text_config.hidden_size
    rows: dict[int, Tensor] = {}

    def answer(pixel_values_videos: Tensor, **kwargs: Any) -> Any:
        frames = pixel_values_videos.shape[1]
        if frames not in rows:
            rows[frames] = torch.randn(1, frames * SIDE * SIDE + 1, width, device=model.device).to(model.dtype)
        return BaseModelOutputWithPooling(pooler_output=rows[frames])

    setattr(model.base_model, name, functools.wraps(getattr(model.base_model, name))(answer))
    return model


@dataclass(frozen=True)
class EveryOther(Criterion):
    """A second stage that drops half of the layers, whatever the weights."""

    name: ClassVar[str] = "every-other"
    summary: ClassVar[str] = "every other layer forgets"

    def measure(self, layer: LayerView) -> Tensor:
        return torch.full((len(layer.hidden),), float(layer.index % 2), device=layer.hidden.device)

    def forget(self, measured: Tensor) -> Tensor:
        return measured > 0


def prefill_flops(model: PreTrainedModel, tokens: int) -> float:
    """Floating point operations of a prefill: two per weight and token, and the causal half of the attention."""
    text = model.config.get_text_config()
    layers = model.get_decoder().layers
    weights = sum(parameter.numel() for parameter in layers.parameters() if parameter.ndim == 2)
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * weights * tokens + 2 * tokens**2 * text.num_attention_heads * head * len(layers)
