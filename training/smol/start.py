"""Where the projector starts: a token that shows a red ring near the embeddings of the words red and ring."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast

from sharpv import pocket
from sharpv.pocket.drawing import BACKGROUNDS, COLOUR_NAMES, GRID
from sharpv.pocket.model import pixel_values

from ..pocket.labels import NO_COLOUR, SHAPE_NAMES, crowded_frame

RIDGE_FRAMES = 320


def tower_states(model: LlavaOnevisionForConditionalGeneration, pixels: Tensor) -> Tensor:
    """(frames, 3, 112, 112) -> (frames, 196, hidden): what the projector reads."""
    states: Tensor = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
    return states


def projected(model: LlavaOnevisionForConditionalGeneration, states: Tensor) -> Tensor:
    """(frames, 196, hidden) -> (frames, 49, text hidden): the visual tokens."""
    tokens: Tensor = model.model.apply_pooling(model.model.multi_modal_projector(states))
    return tokens


@torch.no_grad()
def start_projector(
    model: LlavaOnevisionForConditionalGeneration, words: PreTrainedTokenizerFast, seed: int, texture_seed: int
) -> float:
    """Ridge regression: a token that shows a red ring starts near the embeddings of the words red and ring.

    Where it stands is added as the differences bottom - top and right - left, from -1 to 1 of them. The first map
    begins with pocket's own. Returns the share of variance explained (R2).
    """
    own = pocket.load()[0].model.multi_modal_projector
    projector = model.model.multi_modal_projector
    size = own.linear_1.out_features
    projector.linear_1.weight[:size], projector.linear_1.bias[:size] = own.linear_1.weight, own.linear_1.bias
    embed = model.model.get_input_embeddings().weight

    def meaning(names: tuple[str, ...]) -> Tensor:
        ids = [words(f" {name}", add_special_tokens=False)["input_ids"] for name in names]
        return torch.stack([embed[i].mean(0) for i in ids])

    colours, shapes, backgrounds = meaning(COLOUR_NAMES), meaning(SHAPE_NAMES), meaning(BACKGROUNDS)
    rng = np.random.default_rng([seed, 6])
    frames = [crowded_frame(rng, texture_seed) for _ in range(RIDGE_FRAMES)]
    states = tower_states(model, pixel_values(np.stack([frame.pixels for frame in frames]), model.device))
    x = model.model.apply_pooling(projector.act(projector.linear_1(states))).flatten(0, 1)
    x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    colour, shape = (torch.from_numpy(np.stack([getattr(f, n) for f in frames])).flatten() for n in ("colour", "shape"))
    ground = torch.tensor([frame.background for frame in frames]).repeat_interleave(len(colour) // len(frames))
    shown = colours[colour.clamp(max=NO_COLOUR - 1)] + shapes[shape.clamp(max=len(SHAPE_NAMES) - 1)]
    top, bottom, left, right = meaning(("top", "bottom", "left", "right"))
    along = torch.linspace(-1, 1, GRID)
    place = along[:, None, None] * (bottom - top) + along[:, None] * (right - left)
    y = torch.where((colour < NO_COLOUR)[:, None], shown, 0.7 * backgrounds[ground])
    y = y + place.flatten(0, 1).repeat(len(frames), 1)
    solution = torch.linalg.solve(x.T @ x + torch.eye(x.shape[1]), x.T @ y)
    projector.linear_2.weight.copy_(solution[:-1].T)
    projector.linear_2.bias.copy_(solution[-1])
    return float(1 - (x @ solution - y).square().sum() / (y - y.mean(0)).square().sum())
