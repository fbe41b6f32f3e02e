"""What the vision side made of a prompt's videos, as a value: rows by video, and how they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..models import Layout


@dataclass(frozen=True)
class Plan:
    """Which patches of a video went through the tower.

    Attributes:
        grid: rows and columns of a frame's patches.
        order: ``(N,)`` where in the raster each patch lies, in the order in which the tower is given them.
        encoded: ``(T, N)`` bool on the host, in that order.
    """

    grid: tuple[int, int]
    order: Tensor
    encoded: Tensor

    @property
    def raster(self) -> Tensor:
        """:attr:`encoded` in raster order."""
        return torch.empty_like(self.encoded).index_copy_(1, self.order, self.encoded)


@dataclass(frozen=True)
class Encoded:
    """The features of a prompt's videos, in prompt order.

    Attributes:
        streams: what the language model reads of each video, ``(n, D)``: its features, then, for each decoder layer
            that reads some of its own (Qwen3-VL's deepstack), those.
        layouts: how the rows of each video lie.
        plans: which patches of each were encoded; None: all.
        kind: the class of the encoder's output.
    """

    streams: tuple[list[Tensor], ...]
    layouts: list[Layout]
    plans: list[Plan | None]
    kind: type[Any]

    @classmethod
    def of(cls, output: Any, layouts: list[Layout]) -> Encoded:
        """An encoder's output by video, from a list per video or sample, or a tensor of any leading shape."""
        pooled, sizes = output.pooler_output, [layout.rows for layout in layouts]
        if isinstance(pooled, Tensor) or [len(rows) for rows in pooled] != sizes:
            rows = pooled if isinstance(pooled, Tensor) else torch.cat(list(pooled))
            pooled = rows.flatten(0, -2).split(sizes)
        deep = getattr(output, "deepstack_features", None) or []
        streams = (list(pooled), *(list(layer) for layer in deep))
        return cls(streams, layouts, [None] * len(layouts), type(output))

    @property
    def rows(self) -> list[Tensor]:
        """Each video's features, ``(n, D)``."""
        return self.streams[0]

    @property
    def patches(self) -> list[Tensor]:
        """Each video's patches, ``(T, N, D)``."""
        return [layout.split(rows) for layout, rows in zip(self.layouts, self.rows, strict=True)]

    def carrying(self, merged: Sequence[Tensor | None]) -> Encoded:
        """With other patches ``(T, N, D)`` in the places of a video's own; None: as they are."""
        rows = [
            rows if patches is None else layout.replaced(rows, patches)
            for layout, rows, patches in zip(self.layouts, self.rows, merged, strict=True)
        ]
        return replace(self, streams=(rows, *self.streams[1:]))

    def picked(self, picks: Sequence[Tensor]) -> Encoded:
        """Of each video the picked rows; they no longer lie as the layout says."""
        return self._each(lambda videos: [rows[pick] for rows, pick in zip(videos, picks, strict=True)])

    def output(self, samples: Sequence[int]) -> Any:
        """An encoder's output with one tensor per sample that has any video.

        ``generate`` repeats whole entries for beams, in an order that differs by model.
        """
        owners = sorted(set(samples))

        def join(videos: list[Tensor]) -> list[Tensor]:
            of = [[rows for rows, sample in zip(videos, samples, strict=True) if sample == owner] for owner in owners]
            return [rows[0] if len(rows) == 1 else torch.cat(rows) for rows in of]

        pooled, *deep = self._each(join).streams
        return self.kind(pooler_output=pooled, **({"deepstack_features": deep} if deep else {}))

    def _each(self, change: Callable[[list[Tensor]], list[Tensor]]) -> Encoded:
        return replace(self, streams=tuple(change(stream) for stream in self.streams))


def together(videos: Sequence[Encoded]) -> Encoded:
    """Several videos' features, each encoded by itself."""
    streams = zip(*(video.streams for video in videos), strict=True)
    return Encoded(
        tuple([rows for stream in same for rows in stream] for same in streams),
        [layout for video in videos for layout in video.layouts],
        [plan for video in videos for plan in video.plans],
        videos[0].kind,
    )


def join_pieces(pieces: Iterable[Encoded], frames: int) -> Encoded:
    """One video of so many frames from its pieces.

    They are taken one at a time, so beside the whole no more than one or two of them are held.
    """
    whole: list[Tensor] = []
    done = 0
    for piece in pieces:
        (layout,) = piece.layouts
        features = [rows for (rows,) in piece.streams]
        each = layout.leading + layout.tokens_per_frame
        whole = whole or [rows.new_empty(frames * each + layout.trailing, rows.shape[-1]) for rows in features]
        for joined, rows in zip(whole, features, strict=True):
            # the rows that trail one piece are overwritten by the next
            joined[done * each : done * each + len(rows)] = rows
        done += layout.frames
    return Encoded(tuple([rows] for rows in whole), [replace(layout, frames=frames)], [None], piece.kind)
