"""The pixels of one video as the tower's patches: what each shows, how far frames differ, which tokens read it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from ..models.tower import Pooling

FRAMES_AT_ONCE = 16
"""Frames that are compared at a time, which bounds the memory of planning."""


@dataclass(frozen=True)
class Pixels:
    """One video.

    Attributes:
        frames: ``(T, C, H, W)``, or ``(T, N, values)`` where the processor has cut the patches, those of one merged
            token side by side.
        grid: rows and columns of patches, N of them. In pictures, pixels beyond the last whole patch count for nothing,
            as in the tower.
        token_grid: rows and columns of visual tokens.
        pooling: how tokens come from patches.
    """

    frames: Tensor
    grid: tuple[int, int]
    token_grid: tuple[int, int]
    pooling: Pooling = "average"

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def patches(self) -> int:
        """Of a frame."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """Of a frame."""
        return self.token_grid[0] * self.token_grid[1]

    def look(self, frame: int) -> Tensor:
        """What the patches of a frame show, ``(N, values)``, in the order in which they lie in :attr:`frames`."""
        return self._looks(frame, frame + 1)[0]

    def steps(self) -> Tensor:
        """Mean square difference of each patch from the frame before, ``(T - 1, N)`` float32."""
        found = []
        for start in range(0, len(self) - 1, FRAMES_AT_ONCE):
            looks = self._looks(start, min(start + FRAMES_AT_ONCE + 1, len(self)))
            found.append((looks[1:] - looks[:-1]).square().mean(-1))
        return torch.cat(found) if found else self.frames.new_zeros(0, self.patches, dtype=torch.float32)

    def of_tokens(self, squares: Tensor) -> Tensor:
        """Mean squares of patches ``(T, N)`` as those of the tokens that read them ``(T, n)``, in raster order."""
        down, across = self._weights
        raster = torch.empty_like(squares).index_copy_(1, self.order, squares).unflatten(1, self.grid)
        return (down @ raster @ across.T).flatten(1)

    def read_by(self, tokens: Tensor) -> Tensor:
        """The patches ``(T, N)`` that any of these tokens ``(T, n)`` reads, both bool."""
        down, across = ((part > 0).float() for part in self._weights)
        read = down.T @ tokens.float().unflatten(1, self.token_grid) @ across > 0
        return read.flatten(1).index_select(1, self.order)

    @cached_property
    def order(self) -> Tensor:
        """Where in the raster each patch lies, ``(N,)``, in the order of :attr:`frames`."""
        (rows, columns), side = self.grid, 1 if self.frames.ndim == 4 else self.grid[0] // self.token_grid[0]
        raster = torch.arange(self.patches, device=self.frames.device)
        return raster.view(rows // side, side, columns // side, side).transpose(1, 2).flatten()

    def _looks(self, start: int, stop: int) -> Tensor:
        frames = self.frames[start:stop].float()
        if frames.ndim == 3:
            return frames
        rows, columns = self.grid
        side = frames.shape[-2] // rows, frames.shape[-1] // columns
        cut = frames[..., : rows * side[0], : columns * side[1]]
        cut = cut.unflatten(3, (columns, side[1])).unflatten(2, (rows, side[0]))  # T C rows side columns side
        return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    @cached_property
    def _weights(self) -> tuple[Tensor, Tensor]:
        """How much each row (column) of tokens reads of each row (column) of patches."""
        device = self.frames.device
        return tuple(_weights(n, m, self.pooling).to(device) for n, m in zip(self.token_grid, self.grid, strict=True))  # type: ignore[return-value]


def _weights(tokens: int, patches: int, pooling: Pooling) -> Tensor:
    """``(tokens, patches)`` along one axis."""
    eye = torch.eye(patches)[None]
    if pooling == "bilinear":
        return functional.interpolate(eye, tokens, mode="linear")[0].T
    return functional.adaptive_avg_pool1d(eye, tokens)[0].T
