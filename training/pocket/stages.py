"""The settings of a training run, and its stage 1: tower and projector learn dense heads on crowded frames.

Everything random in a step is drawn from (seed, stage, step), so a run that was killed continues exactly as if it
had not been. Stage 2 is in :mod:`.text_stage`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sharpv.pocket.drawing import BACKGROUNDS, COLOUR_NAMES, GRID
from sharpv.pocket.model import frame_features, pixel_values
from sharpv.pocket.tokens import vocabulary

from .labels import (
    CELLS,
    NO_COLOUR,
    SHAPE_NAMES,
    CrowdedFrame,
    crowded_frame,
)

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration

_HEAD_SIZES = (NO_COLOUR + 1, len(SHAPE_NAMES) + 1, 2, GRID, GRID, len(BACKGROUNDS))
STAGE_1, STAGE_2 = 1, 2


@dataclass(frozen=True)
class Settings:
    """Everything that a training run depends on. The budget is in steps: speed does not change the result."""

    seed: int = 0
    vision_steps: int = 2800
    vision_batch: int = 16
    vision_rate: float = 2e-3
    text_steps: int = 6000
    text_batch: int = 12
    text_rate: float = 1.5e-3
    fresh_per_step: float = 2.7
    """New videos per step; the oldest ones of the buffer go."""
    slots: tuple[tuple[int, int], ...] = ((8, 120), (4, 18), (12, 18), (16, 24), (32, 12))
    """The buffer: (frames, number of videos) pairs; also the shares of the batches."""
    object_phase: float = 0.1925
    """Until this share of the steps only object tokens and some background are kept ..."""
    random_phase: float = 0.65
    """... and from here on random subsets only; in between either. After the first phase the rare and hard
    families of questions count more, and the options of multiple choice are judged one by one."""
    text_budget: int = 130
    """Question tokens per video and step."""
    min_kept: int = 40
    max_kept: int = 340
    max_full: int = 600
    motion_weight: float = 1.0
    """Weight of the auxiliary loss on motion."""
    decay_from: float = 0.6
    """From this share of the steps on the learning rate of the text stage falls."""
    monitor_videos: int = 60

    @property
    def texture_seed(self) -> int:
        """Training textures; the evaluation uses others."""
        return 20 + self.seed


def learning_rate(peak: float, step: int, steps: int, warm_up: int, decay_from: float) -> float:
    """Linear warm-up, constant, cosine to nearly zero over the last ``1 - decay_from`` of the steps."""
    part = max(0.0, (step / steps - decay_from) / (1 - decay_from))
    return peak * min(1.0, (step + 1) / warm_up) * (0.5 * (1 + math.cos(math.pi * part)) + 0.01)


class DenseHeads(nn.Module):
    """What does this token show? One linear layer on the rms-normalised visual token."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.out = nn.Linear(hidden, sum(_HEAD_SIZES))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """(frames, 49, hidden) -> logits of colour, shape, offset, column, row, background."""
        scale = torch.rsqrt(features.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.out(features * scale).split(_HEAD_SIZES, -1)


class VisionStage:
    """Train tower and projector on crowded frames."""

    name = "vision"

    def __init__(self, model: LlavaOnevisionForConditionalGeneration, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.steps = settings.vision_steps
        self.device = model.device
        self.extra = DenseHeads(model.config.text_config.hidden_size).to(self.device)
        parts = (model.model.vision_tower, model.model.multi_modal_projector, self.extra)
        self.parameters = [p for part in parts for p in part.parameters()]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=settings.vision_rate, weight_decay=0.02, betas=(0.9, 0.98)
        )

    def rate(self, step: int) -> float:
        return learning_rate(self.settings.vision_rate, step, self.steps, 40, 0.5)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([self.settings.seed, STAGE_1, step])
        frames = [crowded_frame(rng, self.settings.texture_seed) for _ in range(self.settings.vision_batch)]
        pixels = pixel_values(np.stack([frame.pixels for frame in frames]), self.device)
        return dense_loss(self.extra, frame_features(self.model, pixels), frames)


def dense_loss(heads: DenseHeads, features: Tensor, frames: list[CrowdedFrame]) -> tuple[Tensor, dict[str, float]]:
    """Loss of the dense heads and how often they are right."""
    device, count = features.device, len(frames)

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(frame, name) for frame in frames])).to(device)

    colour, shape, offset = stacked("colour"), stacked("shape"), stacked("offset")
    background = torch.tensor([frame.background for frame in frames], device=device)[:, None].expand(-1, CELLS)
    cell = torch.arange(CELLS, device=device).expand(count, -1)
    logits = heads(features)
    objects = colour != NO_COLOUR
    weight = torch.where(objects, 1.0, 0.25)

    def entropy(index: int, target: Tensor, weight: Tensor) -> Tensor:
        each = functional.cross_entropy(logits[index].flatten(0, 1), target.flatten(), reduction="none")
        return (each * weight.flatten()).sum() / weight.sum()

    ones = torch.ones_like(weight)
    loss = entropy(0, colour, weight) + 1.5 * entropy(1, shape, weight)
    loss = loss + (logits[2] - offset)[objects].pow(2).mean()
    loss = loss + 0.3 * (entropy(3, cell % GRID, ones) + entropy(4, cell // GRID, ones))
    loss = loss + 0.5 * entropy(5, background, ones)
    dots = shape == len(SHAPE_NAMES) - 1
    facts = {
        "loss": loss,
        "colour": (logits[0].argmax(-1) == colour)[objects].float().mean(),
        "shape": (logits[1].argmax(-1) == shape)[objects].float().mean(),
        "dot": (logits[1].argmax(-1) == shape)[dots].float().mean(),
        "background": (logits[5].argmax(-1) == background).float().mean(),
    }
    return loss, {name: float(value.detach()) for name, value in facts.items()}


@torch.no_grad()
def align_words(model: LlavaOnevisionForConditionalGeneration, heads: DenseHeads, strength: float = 1.5) -> None:
    """Add to the embedding of each colour, shape and background word the direction in which its tokens lie."""
    embedding = model.model.language_model.embed_tokens.weight
    words = vocabulary()
    colour, shape, *_, background = heads.out.weight.split(_HEAD_SIZES)
    for names, rows in ((COLOUR_NAMES, colour), (SHAPE_NAMES, shape), (BACKGROUNDS, background)):
        directions = rows[: len(names)] - rows[: len(names)].mean(0)
        index = [words.index(name) for name in names]
        embedding[index] += strength * functional.normalize(directions, dim=1)
