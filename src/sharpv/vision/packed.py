"""The map of a packed pass: which encoded patch stands at which place, and who attends to whom.

``source[t, i]`` is the row of the packed sequence that stands at place i of frame t. Rows of all frames go through a
tower's layers as one sequence; a frame's attention has its own rows as queries and ``K[source[t]], V[source[t]]`` as
keys and values. At layer l all rows are at layer l, so those of earlier frames are simply there: nothing is remembered
between passes. Only index arithmetic, on the host; tensors move to a device once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

PADDINGS = 8
"""Segments are padded to so many different lengths, each run as one batch."""


@dataclass(frozen=True)
class Batch:
    """Segments of equally many queries (padded) and keys.

    Attributes:
        numbers: ``(G,)`` which segments they are.
        queries: ``(G, n)`` rows; padding repeats the last.
        places: ``(G, n)`` where in the segment the queries stand.
        keys: ``(G, m)`` rows.
    """

    numbers: Tensor
    queries: Tensor
    places: Tensor
    keys: Tensor


@dataclass(frozen=True)
class Segments:
    """What attends together: whole frames, or windows of them.

    Attributes:
        batches: the segments that have rows, by size.
        back: ``(R,)`` where each row's output lies among those of the batches, one after another.
        query_ends, key_ends: int32, bounds of the segments in the packed queries, and in :attr:`keys`.
        keys: rows of the keys of all segments, one after another.
        most: the longest segment, in queries and in keys.
    """

    batches: list[Batch]
    back: Tensor
    query_ends: Tensor
    key_ends: Tensor
    keys: Tensor
    most: tuple[int, int]


class Packed:
    """A packed pass over frames of which only some patches are encoded.

    Args:
        encoded: ``(T, N)`` bool on the host, in the order in which the tower holds the patches; frame 0 is whole.
        leading: places before the patches (a class token), encoded wherever their frame has any row.
        windows: lengths of the windows of a frame, which lie one after another; None: there are none.
        device: of the tensors.
    """

    def __init__(
        self,
        encoded: Tensor,
        leading: int = 0,
        windows: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if leading:
            encoded = torch.cat([encoded.any(1, keepdim=True).expand(-1, leading), encoded], dim=1)
        self.device = torch.device(device)
        self._encoded = encoded
        self._windows = windows
        self._source = (encoded.flatten().cumsum(0) - 1)[standing(encoded)]
        self.rows = encoded.flatten().nonzero().flatten().to(device)
        self.source = self._source.to(device)
        self.shape = encoded.shape

    def cut(self, hidden: Tensor) -> Tensor:
        """States of all places, ``(T, N, D)`` or ``(T * N, D)``, as packed rows ``(1, R, D)`` or ``(R, D)``."""
        if hidden.ndim == 3:
            return hidden.flatten(0, 1).index_select(0, self.rows)[None]
        return hidden.index_select(0, self.rows)

    def spread(self, hidden: Tensor) -> Tensor:
        """The inverse of :meth:`cut`, with what stands in the place of what was not encoded; whole states stay."""
        if hidden.ndim == 3:
            return (
                hidden
                if hidden.shape[:2] == self.shape
                else hidden[0].index_select(0, self.source).unflatten(0, self.shape)
            )
        return hidden if len(hidden) == len(self.source) else hidden.index_select(0, self.source)

    @cached_property
    def by_frame(self) -> Segments:
        """Every frame attends within itself."""
        return self._segments([self.shape[1]])

    @cached_property
    def by_window(self) -> Segments:
        """Every window attends within itself."""
        return self._segments(self._windows or [self.shape[1]])

    def _segments(self, lengths: Sequence[int]) -> Segments:
        each = torch.tensor(lengths).repeat(self.shape[0])
        return segments(self._encoded.flatten(), self._source, each, self.device)


def standing(encoded: Tensor) -> Tensor:
    """What stands at the places of ``(T, N)`` bool frames, ``(T * N,)``: of each, its number among all places.

    It is the last that was encoded there; frame 0 is whole.
    """
    frames, places = encoded.shape
    last = torch.where(encoded, torch.arange(frames)[:, None], 0).cummax(0).values
    return (last * places + torch.arange(places)).flatten()


def segments(encoded: Tensor, source: Tensor, lengths: Tensor, device: torch.device) -> Segments:
    """What attends together, of places that lie in segments of these lengths, one after another.

    Args:
        encoded: ``(P,)`` bool on the host, places that have a row of their own; rows lie in this order.
        source: ``(P,)`` the row that stands at each place.
        lengths: ``(S,)`` of the segments.
        device: of the tensors.
    """
    low = lengths.cumsum(0) - lengths
    rows = torch.cat([encoded.new_zeros(1, dtype=torch.long), encoded.cumsum(0)])
    first, counts = rows[low], rows[low + lengths] - rows[low]
    step = (lengths + PADDINGS - 1) // PADDINGS
    padded = torch.minimum((counts + step - 1) // step * step, lengths)
    place = encoded.nonzero().flatten()

    batches, back, done = [], torch.empty(len(place), dtype=torch.long), 0
    for n, m in sorted({pair for pair in zip(padded.tolist(), lengths.tolist(), strict=True) if pair[0]}):
        chosen = ((padded == n) & (lengths == m)).nonzero().flatten()
        inside = torch.arange(n)
        queries = first[chosen, None] + torch.minimum(inside, counts[chosen, None] - 1)
        real = inside < counts[chosen, None]
        back[queries[real]] = done + torch.arange(len(chosen) * n).view(-1, n)[real]
        done += len(chosen) * n
        batches.append(
            Batch(
                chosen.to(device),
                queries.to(device),
                (place[queries] - low[chosen, None]).to(device),
                source[low[chosen, None] + torch.arange(m)].to(device),
            )
        )
    some = counts > 0
    return Segments(
        batches,
        back.to(device),
        _ends(counts[some]).to(device),
        _ends(lengths[some]).to(device),
        source[some.repeat_interleave(lengths)].to(device),
        (int(counts.max()), int(lengths[some].max())),
    )


def _ends(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()
