"""How many tokens a video keeps, before the model has seen it, and which, once it has.

vLLM fixes the length of a prompt when a request arrives, from pixels; features exist only in the engine. So the number
is found first and the tokens are chosen to meet it. Everything here is torch and the library's own mathematics.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..budget import Budget, keep_top
from ..importance import frame_retention, surroundings
from ..methods.sharpv import SharpV
from .options import Options


def count(looks: Tensor, options: Options) -> int:
    """How many tokens a video is to keep.

    Args:
        looks: ``(T, N, P)``, the pixels under each token.
        options: in its "budget" mode only the shape matters.

    Raises:
        ValueError: the floor asks for more than the rate leaves.
    """
    frames, size = looks.shape[:2]
    most = options.most(frames * size)
    budget = Budget(max_tokens=most, min_tokens_per_frame=options.floor)
    if options.mode == "budget":
        budget.counts(torch.ones(frames), size)  # refuses a floor above the total
        return most
    # r_t = RMS(T_t) / 2, of pixels
    share = frame_retention(*surroundings(looks)) * options.gain
    return int(budget.counts(share.clamp(max=1.0), size).sum())


def keep(features: Tensor, total: int, options: Options) -> Tensor:
    """The ``total`` tokens of a video that are kept, ``(T, N)`` bool: SharpV's choice under an exact budget.

    Features that are not finite count as dull: what answers them would be noise in any case, and a count that is not
    met would end the engine.
    """
    scores = SharpV(weight=options.weight).score(features)
    assert scores.demand is not None
    budget = Budget(retention=1.0, max_tokens=total, min_tokens_per_frame=options.floor)
    counts = budget.counts(scores.demand.nan_to_num(0.0), features.shape[1])
    return keep_top(scores.tokens.nan_to_num(0.0), counts)


def looks_of_patches(pixels: Tensor, grid: tuple[int, int, int], merge: int) -> Tensor:
    """Qwen's pixels: ``(T * H * W, values)`` in the order of the merged tokens -> ``(T, N, merge^2 * values)``."""
    frames, height, width = grid
    return _normal(pixels).reshape(frames, height * width // merge**2, -1)


def looks_of_pictures(pixels: Tensor, patch: int, stride: int) -> Tensor:
    """LLaVA's pixels: ``(T, C, side, side)`` -> ``(T, N, values)``, N squares of ``stride`` patches a side, the last
    ones filled up by repeating the border, as pooling rounds up."""
    cell = patch * stride
    patches = pixels.shape[-1] // patch
    cells = math.ceil(patches / stride)
    pixels = _normal(pixels)[..., : patches * patch, : patches * patch]
    short = cells * cell - patches * patch
    if short:
        pixels = functional.pad(pixels, (0, short, 0, short), mode="replicate")
    return functional.unfold(pixels, cell, stride=cell).transpose(1, 2)


def _normal(pixels: Tensor) -> Tensor:
    """Around 0; vLLM may leave pixels as bytes for the device to normalise."""
    return pixels.float() / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels.float()
