"""An encoder's output while its videos are pruned: rows taken apart by video, picked, and joined again by sample.

They edit the output in place: ``pooler_output``, and each layer of ``deepstack_features`` alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .models import Layout


def separate(output: Any, layouts: list[Layout]) -> None:
    """One ``(n, D)`` tensor per layout, from a list per video or sample, or a tensor of any leading shape."""
    pooled, sizes = output.pooler_output, [layout.rows for layout in layouts]
    if isinstance(pooled, Tensor) or [len(rows) for rows in pooled] != sizes:
        rows = pooled if isinstance(pooled, Tensor) else torch.cat(list(pooled))
        output.pooler_output = list(rows.flatten(0, -2).split(sizes))


def keep_rows(output: Any, picks: list[Tensor]) -> None:
    """Of each video the picked rows."""
    _each(output, lambda videos: [rows[pick] for rows, pick in zip(videos, picks, strict=True)])


def join_samples(output: Any, samples: list[int]) -> None:
    """One tensor per sample, since ``generate`` repeats whole entries for beams, in an order that differs by model."""
    owners = sorted(set(samples))

    def join(videos: list[Tensor]) -> list[Tensor]:
        of = [[rows for rows, sample in zip(videos, samples, strict=True) if sample == owner] for owner in owners]
        return [rows[0] if len(rows) == 1 else torch.cat(rows) for rows in of]

    _each(output, join)


def join_pieces(pieces: Iterable[tuple[Any, Layout]], order: Sequence[int]) -> Any:
    """One video's output from those of its pieces: frame t is the ``order[t]``-th of all the pieces' frames.

    ``order`` never goes down, so each piece fills one stretch of the whole. The pieces are taken one at a time, so
    beside the whole no more than one or two of them are held.
    """
    output: Any = None
    whole: list[Tensor] = []
    before = 0
    for piece, layout in pieces:
        features = [piece.pooler_output[0], *(rows[0] for rows in getattr(piece, "deepstack_features", None) or [])]
        each = layout.leading + layout.tokens_per_frame
        if output is None:
            output = piece
            whole = [rows.new_empty(len(order) * each + layout.trailing, rows.shape[-1]) for rows in features]
        start, end = (bisect_left(order, encoded) for encoded in (before, before + layout.frames))
        picks = torch.tensor(order[start:end], device=whole[0].device) - before
        for joined, rows in zip(whole, features, strict=True):
            joined[start * each : end * each] = layout.frames_of(rows).index_select(0, picks).flatten(0, 1)
            joined[len(order) * each :] = rows[len(rows) - layout.trailing :]
        before += layout.frames
    output.pooler_output = whole[:1]
    if len(whole) > 1:
        output.deepstack_features = [[rows] for rows in whole[1:]]
    return output


def _each(output: Any, change: Callable[[list[Tensor]], list[Tensor]]) -> None:
    output.pooler_output = change(output.pooler_output)
    if getattr(output, "deepstack_features", None) is not None:
        output.deepstack_features = [change(layer) for layer in output.deepstack_features]
