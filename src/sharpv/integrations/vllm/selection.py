"""What is decided of a video from its pixels, before the model has seen it, and which tokens it keeps once it has.

vLLM fixes the length of a prompt when a request arrives, from pixels; features exist only in the engine. So the number
is found first and the tokens are chosen to meet it; which patches are encoded is found with it, where the pixels are.
Everything here is torch and the library's own mathematics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...methods import Selection
from ...methods.budget import Budget, Present, rank
from ...methods.importance import frame_retention, surroundings
from ...vision.pixels import Pixels
from .options import Options


@dataclass(frozen=True)
class Shown:
    """A video before it is encoded.

    Attributes:
        pixels: as the tower's patches.
        looks: gives the pixels under each token, ``(T, N, P)``; it costs a pass over them.
    """

    pixels: Pixels
    looks: Callable[[], Tensor]

    @property
    def frames(self) -> int:
        """T."""
        return len(self.pixels)

    @property
    def tokens(self) -> int:
        """N, a frame's."""
        return self.pixels.tokens


def count(video: Shown, options: Options) -> int:
    """How many tokens a video is to keep; its pixels are looked at only where they are counted.

    Raises:
        ValueError: the floor asks for more than the rate leaves, or no frame could be read.
    """
    if not video.frames:
        raise ValueError("the video is empty: none of its frames could be read")
    budget = options.config.budget
    most = budget.total(video.frames * video.tokens)
    assert most is not None
    there = Present.everywhere(video.frames, video.tokens)
    if options.counting == "exact":
        budget.counts(torch.ones(video.frames), there)  # refuses a floor above the total
        return most
    # r_t = RMS(T_t) / 2, of pixels
    share = frame_retention(*surroundings(video.looks())) * options.gain
    ceiling = replace(budget, retention=None, max_tokens=most)
    return int(ceiling.counts(share.clamp(max=1.0), there).sum())


def encoded(video: Shown, options: Options, total: int) -> Tensor | None:
    """Which places of a video that keeps so many tokens go through the tower, ``(T, P)`` bool; None: all.

    A place is a token where its patches go together, and a patch elsewhere.
    """
    rule, pixels = options.config.encoding.rule, video.pixels
    if rule is None:
        return None
    chosen = rule.choose(pixels, _of_so_many(options.config.budget, total, video.frames * video.tokens))
    return chosen[:, :: pixels.patches // pixels.tokens] if pixels.together else chosen


def keep(features: Tensor, total: int, options: Options) -> Selection:
    """What a video of ``(T, N, D)`` features keeps by the configured method: exactly ``total`` tokens.

    The selection of a merging method carries its merged features, as everywhere; they are used on models on which the
    library uses them. Tokens that are not finite go first: what answers them would be noise in any case, and a count
    that is not met would end the engine.
    """
    frames, size, _ = features.shape
    finite = features.isfinite().all(dim=-1)
    budget = _of_so_many(options.config.budget, total, frames * size)
    there = Present.everywhere(frames, size, features.device)
    selection = options.config.first.pick(features.nan_to_num(0.0, 0.0, 0.0), budget, there)
    worth = selection.keep.float() - 2.0 * ~finite
    return replace(selection, keep=(rank(worth.flatten()) < total).view_as(finite))


def _of_so_many(budget: Budget, total: int, tokens: int) -> Budget:
    """The budget at which this total is kept of a video."""
    if budget.total(tokens) == total:
        return budget
    return replace(budget, retention=total / tokens, max_tokens=None)  # as a share, which some methods read


def refuse_inexact(options: Options) -> None:
    """Try the method on a few random tokens.

    Raises:
        ValueError: it keeps another number of them than it was given.
    """
    frames, size, total = 4, 9, 13
    features = torch.randn(frames, size, 16, generator=torch.Generator().manual_seed(0))
    budget = replace(options.config.budget, retention=total / (frames * size), max_tokens=None, min_tokens_per_frame=0)
    kept = int(options.config.first.pick(features, budget, Present.everywhere(frames, size)).keep.sum())
    if kept != total:
        raise ValueError(
            f"vLLM fixes how many tokens a video keeps, and method {options.config.first.name!r} kept {kept} of "
            f"{frames * size} where {total} were asked for: choose another ('sharpv methods' lists them)"
        )


def shown_patches(pixels: Tensor, grid: Sequence[int], merge: int, scale: Tensor | None = None) -> Shown:
    """Qwen's video: ``(T * H * W, values)`` in the order of the merged tokens, ``merge^2`` patches a token.

    Args:
        scale: of each value, of bytes that vLLM leaves to the device to normalise.
    """
    frames, tokens = grid[0], grid[1] * grid[2] // merge**2
    patches = Pixels(
        pixels.view(frames, grid[1] * grid[2], -1),
        (grid[1], grid[2]),
        (grid[1] // merge, grid[2] // merge),
        together=True,
        scale=scale,
    )
    return Shown(patches, lambda: _normal(pixels).reshape(frames, tokens, -1))


def pool_stride(config: Any) -> int:
    """How many patches of a side go into a token of LLaVA's videos; a configuration that does not say means two."""
    stride: int = getattr(config, "spatial_pool_stride", 2)
    return stride


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

    return Shown(Pixels(pixels, (patches, patches), (cells, cells), "bilinear"), looks)


def _normal(pixels: Tensor) -> Tensor:
    """Around 0; vLLM may leave pixels as bytes for the device to normalise."""
    return pixels.float() / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels.float()
