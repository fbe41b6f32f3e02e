"""The mathematics of Visual SharpV: how much each visual token differs from its surroundings.

Everything here is a pure function of one video's features, shape ``(T, N, D)``: T frames, N visual tokens a frame,
D channels. Any float dtype comes in, scores go out in float32, the device is the features' own, and nothing
synchronises with the host. No matrix product is taken, so neither autocast nor TF32 lowers anything.

Source: SharpV, https://arxiv.org/abs/2511.08003, stage 1 (Visual SharpV). Conventions that are ours, where the paper is
silent: a zero vector stays zero when it is normalised (so it lies 0 from another zero vector and 1 from any other
vector), the mean in the spatial term is the mean of the raw tokens, and a difference within the rounding of float32
counts as none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")


DISSIMILARITY_MAX = 2.0
"""Dissim of two opposite vectors, the upper end of its range."""
ROUNDING = 2.0**-20
"""Dissim of vectors that differ in length only, or of a token from the mean of its equals, can come out as large as
this in float32 (seen: 4.6e-7 at 8,192 channels), so it counts as none."""
NEAR = 0.2
"""Dissim below which one token nearly repeats another: a cosine above 0.98."""
VALUES_AT_ONCE, VALUES_ELSEWHERE = {"cpu": 2**20}, 2**24
"""Features that are taken together, as whole frames, by device type: what fits its cache."""


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

    Both are norms of differences, which stay exact where vectors are nearly aligned and dot products would cancel.
    A few frames at a time fit the processor's cache, so memory is read once.
    """
    step = max(1, VALUES_AT_ONCE.get(features.device.type, VALUES_ELSEWHERE) // max(1, features[0].numel()))
    room = None
    if not (features.requires_grad and torch.is_grad_enabled()):
        # one piece of memory for all differences: asking for a new one each time costs as much as the differences
        room = features.new_empty((min(step, len(features)), *features.shape[1:]), dtype=torch.float32)
    spatial: list[Tensor] = []
    temporal: list[Tensor] = []
    lengths: list[Tensor] = []
    mean_lengths: list[Tensor] = []
    before: Tensor | None = None
    for part in features.split(step):
        frames = part.float()
        length = torch.linalg.vector_norm(frames, dim=-1)
        if before is not None:
            temporal.append(_difference(frames[:1], length[:1], before, lengths[-1][-1:], room))
        if len(frames) > 1:
            temporal.append(_difference(frames[1:], length[1:], frames[:-1], length[:-1], room))
        mean = frames.mean(dim=1, keepdim=True)
        mean_length = torch.linalg.vector_norm(mean, dim=-1)
        spatial.append(_difference(frames, length, mean, mean_length, room))
        before = frames[-1:]
        lengths.append(length)
        mean_lengths.append(mean_length)
    length, mean_length = torch.cat(lengths), torch.cat(mean_lengths)
    changes = torch.cat([length[:0], *temporal])  # of one frame there are none
    return _dissimilar(torch.cat(spatial), length, mean_length), _dissimilar(changes, length[1:], length[:-1])


def importance(spatial: Tensor, temporal: Tensor, weight: float = 1.0) -> Tensor:
    """I_t = T_t + w * S_t for t >= 2, and I_1 = S_1. ``(T, N), (T - 1, N) -> (T, N)``."""
    return torch.cat([spatial[:1], temporal + weight * spatial[1:]])


def frame_retention(spatial: Tensor, temporal: Tensor) -> Tensor:
    """r_t = ||T_t||_2 / (2 sqrt(N)) = RMS(T_t) / 2, and r_1 = RMS(S_1) / 2: the share of frame t worth keeping.

    ``(T, N), (T - 1, N) -> (T,)``, in [0, 1]. A moving frame asks for much, a still one for little.
    """
    change = torch.cat([spatial[:1], temporal])
    return change.square().mean(dim=1).sqrt() / DISSIMILARITY_MAX


def nearly_repeat(features: Tensor, places: Tensor, size: int) -> Tensor:
    """How many survivors nearly equal the survivor at their place one frame before: a count ``()``, unread.

    Args:
        features: ``(n, D)`` of the survivors.
        places: ``(n,)`` rising, where each stood among the ``T * size`` tokens of the video.
        size: tokens of a frame.
    """
    if not len(places):
        return places.sum()
    before = torch.searchsorted(places, places - size).clamp(max=len(places) - 1)
    there = places[before] == places - size
    return (there & (dissimilarity(features, features[before]) < NEAR)).sum()


def _difference(a: Tensor, a_length: Tensor, b: Tensor, b_length: Tensor, room: Tensor | None) -> Tensor:
    """|| a - (|a| / |b|) b ||, with the differences written into ``room`` if there is any.

    ``(t, N, D), (t, N)`` and the same for b, which may have 1 in the place of N ``-> (t, N)``.
    """
    out = None if room is None else room[: len(a)]
    return torch.linalg.vector_norm(torch.addcmul(a, b, (a_length / b_length)[..., None], value=-1, out=out), dim=-1)


def _dissimilar(difference: Tensor, a_length: Tensor, b_length: Tensor) -> Tensor:
    """Dissim(a, b) from :func:`_difference`."""
    zero = (a_length == 0) | (b_length == 0)
    dissimilar = torch.where(zero, (a_length != b_length).float(), difference / a_length)
    return torch.where(dissimilar <= ROUNDING, 0.0, dissimilar)


def _unit(vectors: Tensor) -> Tensor:
    vectors = vectors.float()
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / norm.where(norm > 0, 1.0)
