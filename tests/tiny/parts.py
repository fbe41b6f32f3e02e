"""What prompts are made of, and the size of all tiny language models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PAD, IMAGE, VIDEO, START, END, EOS = 0, 1, 2, 3, 4, 5
VOCABULARY = 64
LAYERS = 4
HIGH_M = 0.985
"""A memory threshold that some layers of every tiny model fall below: random layers change their input little."""
TEXT = dict(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=4096, pad_token_id=PAD, bos_token_id=None, eos_token_id=EOS,
)  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """A random clip, a quarter of which changes from frame to frame; height and width in tokens."""

    seed: int
    frames: int = 4
    height: int = 3
    width: int = 3
    image: bool = False


Part = int | Clip
"""A piece of a prompt: a text token id, or a clip."""


def draw(clip: Clip, channels: int, height: int, width: int, frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(clip.seed)
    still = torch.randn(1, channels, height, width, generator=generator).expand(frames, -1, -1, -1).clone()
    moving = torch.randn(frames, channels, height, width, generator=generator)
    change = torch.rand(frames, 1, height, width, generator=generator) < 0.25
    return torch.where(change, moving, still)


def pad(rows: list[list[int]], side: str = "left") -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), PAD), torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[index, place], mask[index, place] = torch.tensor(row), 1
    return ids, mask
