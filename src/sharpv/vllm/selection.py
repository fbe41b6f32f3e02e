"""How many tokens a video keeps, before the model has seen it, and which, once it has.

vLLM fixes the length of a prompt when a request arrives, from pixels; features exist only in the engine. So the number
is found first and the tokens are chosen to meet it. Everything here is torch and the library's own mathematics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..budget import Budget, keep_top
from ..importance import frame_retention, surroundings
from ..methods.sharpv import SharpV
from .options import Options


@dataclass(frozen=True)
class Shown:
    """A video before it is encoded.

    Attributes:
        frames: T.
        tokens: N, a frame's.
        looks: gives the pixels under each token, ``(T, N, P)``; it costs a pass over them.
    """

    frames: int
    tokens: int
    looks: Callable[[], Tensor]


def count(video: Shown, options: Options) -> int:
    """How many tokens a video is to keep; in the "budget" mode its pixels are not looked at.

    Raises:
        ValueError: the floor asks for more than the rate leaves.
    """
    most = options.most(video.frames * video.tokens)
    budget = Budget(max_tokens=most, min_tokens_per_frame=options.floor)
    if options.mode == "budget":
        budget.counts(torch.ones(video.frames), video.tokens)  # refuses a floor above the total
        return most
    # r_t = RMS(T_t) / 2, of pixels
    share = frame_retention(*surroundings(video.looks())) * options.gain
    return int(budget.counts(share.clamp(max=1.0), video.tokens).sum())


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


def shown_patches(pixels: Tensor, grid: Sequence[int], merge: int) -> Shown:
    """Qwen's video: ``(T * H * W, values)`` in the order of the merged tokens, ``merge^2`` patches a token."""
    frames, tokens = grid[0], grid[1] * grid[2] // merge**2
    return Shown(frames, tokens, lambda: _normal(pixels).reshape(frames, tokens, -1))


def shown_pictures(pixels: Tensor, patch: int, stride: int) -> Shown:
    """LLaVA's video: ``(T, C, side, side)``; a token is a square of ``stride`` patches a side.

    The last ones are filled up by repeating the border, as pooling rounds up.
    """
    patches = pixels.shape[-1] // patch
    cells, cell = math.ceil(patches / stride), patch * stride
    short = cells * cell - patches * patch

    def looks() -> Tensor:
        whole = _normal(pixels)[..., : patches * patch, : patches * patch]
        if short:
            whole = functional.pad(whole, (0, short, 0, short), mode="replicate")
        return functional.unfold(whole, cell, stride=cell).transpose(1, 2)

    return Shown(len(pixels), cells**2, looks)


def _normal(pixels: Tensor) -> Tensor:
    """Around 0; vLLM may leave pixels as bytes for the device to normalise."""
    return pixels.float() / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels.float()
