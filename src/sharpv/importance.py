"""The mathematics of Visual SharpV: how much each visual token differs from its surroundings.

Everything here is a pure function of one video's features, shape ``(T, N, D)``: T frames, N visual tokens a frame,
D channels. Any float dtype comes in, scores go out in float32, the device is the features' own, and nothing
synchronises with the host.

Source: SharpV, https://arxiv.org/abs/2511.08003, stage 1 (Visual SharpV). Conventions that are ours, where the paper is
silent: a zero vector stays zero when it is normalised (so it lies 0 from another zero vector and 1 from any other
vector), the mean in the spatial term is the mean of the raw tokens, and a difference within the rounding of float32
counts as none.
"""

from __future__ import annotations

import torch
from torch import Tensor

DISSIMILARITY_MAX = 2.0
"""Dissim of two opposite vectors, the upper end of its range."""
ROUNDING = 2.0**-18
"""Squared differences of unit vectors up to this can come from float32 dot products of equal vectors (seen: 1.2e-6 at
8,192 channels), so they count as none: Dissim below 0.002."""
FRAMES_AT_ONCE, FRAMES_ELSEWHERE = {"cpu": 4}, 32
"""Frames whose products are taken together, by device type."""


def dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    """Dissim(a, b) = || a/|a| - b/|b| ||_2 = sqrt(2 - 2 cos(a, b)), in [0, 2], over the last dimension.

    The paper prefers it to 1 - cos because the square root spreads apart directions that are nearly aligned, which
    the features of a video are. It is computed as the norm of the difference, so equal inputs give exactly 0.

    >>> dissimilarity(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0]))
    tensor(1.4142)
    """
    return torch.linalg.vector_norm(_unit(a) - _unit(b), dim=-1)


def spatial_importance(features: Tensor) -> Tensor:
    """S_t[i] = Dissim(F_t[i], mean_j F_t[j]): how a token differs from its own frame. ``(T, N, D) -> (T, N)``."""
    return surroundings(features)[0]


def temporal_importance(features: Tensor) -> Tensor:
    """T_t[i] = Dissim(F_t[i], F_{t-1}[i]): how a token differs from the same place one frame before.

    ``(T, N, D) -> (T - 1, N)``: the first frame has no predecessor, so row 0 of the result belongs to frame 1.
    """
    return surroundings(features)[1]


def surroundings(features: Tensor) -> tuple[Tensor, Tensor]:
    """S and T, as :func:`spatial_importance` and :func:`temporal_importance`, in one pass over the features.

    Both follow from dot products: of each token with itself, with its predecessor, and with its frame's mean. A few
    frames at a time fit the processor's cache and make one small matrix product per place, which is read once.
    """
    step = FRAMES_AT_ONCE.get(features.device.type, FRAMES_ELSEWHERE)
    parts = [_products(features, start, start + step) for start in range(0, len(features), step)]
    squares, before, mean, mean_square = (torch.cat(part) for part in zip(*parts, strict=True))
    spatial = _from_products(mean, squares, mean_square)
    return spatial, _from_products(before, squares[1:], squares[:-1])


def importance(spatial: Tensor, temporal: Tensor, weight: float = 1.0) -> Tensor:
    """I_t = T_t + w * S_t for t >= 2, and I_1 = S_1. ``(T, N), (T - 1, N) -> (T, N)``."""
    return torch.cat([spatial[:1], temporal + weight * spatial[1:]])


def frame_retention(spatial: Tensor, temporal: Tensor) -> Tensor:
    """r_t = ||T_t||_2 / (2 sqrt(N)) = RMS(T_t) / 2, and r_1 = RMS(S_1) / 2: the share of frame t worth keeping.

    ``(T, N), (T - 1, N) -> (T,)``, in [0, 1]. A moving frame asks for much, a still one for little.
    """
    change = torch.cat([spatial[:1], temporal])
    return change.square().mean(dim=1).sqrt() / DISSIMILARITY_MAX


def _products(features: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For the frames from start to stop, with m their means: <F_t, F_t>, <F_t, F_{t-1}>, <F_t, m>, <m, m>.

    Each is ``(frames, N)``, the last ``(frames, 1)``: taken from m itself, since tokens may nearly cancel in it.
    """
    first = max(start - 1, 0)
    frames = features[first:stop].float()
    places = frames.transpose(0, 1)
    gram = places @ places.mT
    frames = frames[start - first :]
    mean = frames.new_full((1, frames.shape[1]), 1 / frames.shape[1]) @ frames
    squares = gram.diagonal(dim1=1, dim2=2).T[start - first :]
    before = gram.diagonal(offset=1, dim1=1, dim2=2).T
    return squares, before, (frames @ mean.mT).squeeze(-1), (mean @ mean.mT).squeeze(-1)


def _from_products(dot: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Dissim from <x, y>, <x, x> and <y, y>."""
    norms = (a.double() * b.double()).sqrt()
    cosine = torch.where(norms == 0, 0.0, dot / norms)
    squared = (a != 0).double() + (b != 0) - 2 * cosine
    return torch.where(squared <= ROUNDING, 0.0, squared).sqrt().float()


def _unit(vectors: Tensor) -> Tensor:
    vectors = vectors.float()
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / norm.where(norm > 0, 1.0)
