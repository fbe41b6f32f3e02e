"""The pixels of one video as the tower's patches: what each shows, how far frames differ, which tokens read it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from ..models.tower import Pooling

IN_CACHE = 2**17
"""Values that are compared at a time on a CPU: what stays in its cache is read from memory once."""


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
        together: the patches of a token change together, where one of them does. Only for patches.
        scale: ``(values,)`` makes differences of a patch's values those of the processor's units; None: they are.
    """

    frames: Tensor
    grid: tuple[int, int]
    token_grid: tuple[int, int]
    pooling: Pooling = "average"
    together: bool = False
    scale: Tensor | None = None

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
        """A frame, as :meth:`differ` and :meth:`put` take it."""
        shown = self.frames[frame]
        if shown.ndim == 2:
            return shown
        rows, columns = self.grid
        side = shown.shape[-2] // rows, shown.shape[-1] // columns
        cut = shown[:, : rows * side[0], : columns * side[1]]
        return cut.unflatten(2, (columns, side[1])).unflatten(1, (rows, side[0]))

    def differ(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean square difference of each patch of two looks, ``(N,)`` float32, in the order of :attr:`frames`."""
        if a.ndim > 2:
            # channels first: sums of whole rows of pixels
            squares = (a.float() - b.float()).square_()
            return (squares.sum(0).sum((1, 3)) / (a.shape[0] * a.shape[2] * a.shape[4])).flatten()
        at_once = max(1, IN_CACHE // a.shape[1]) if a.device.type == "cpu" else len(a)
        squares = torch.cat([self._squares(*parts) for parts in zip(a.split(at_once), b.split(at_once), strict=True)])
        if self.together:
            squares = squares.unflatten(0, (self.tokens, -1)).amax(1, keepdim=True)
            squares = squares.expand(-1, self.patches // self.tokens).flatten()
        return squares

    def put(self, standing: Tensor, look: Tensor, now: Tensor) -> Tensor:
        """A look with these patches, ``(N,)`` bool, of another in it."""
        place = now[:, None] if look.ndim == 2 else now.view(self.grid[0], 1, self.grid[1], 1)
        return torch.where(place, look, standing)

    @cached_property
    def steps(self) -> Tensor:
        """Mean square difference of each patch from the frame before, ``(T - 1, N)`` float32."""
        looks = [self.look(frame) for frame in range(len(self))]
        found = [self.differ(*pair) for pair in zip(looks[1:], looks, strict=False)]
        return torch.stack(found) if found else self.frames.new_zeros(0, self.patches, dtype=torch.float32)

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

    def _squares(self, a: Tensor, b: Tensor) -> Tensor:
        step = a.float() - b.float()
        if self.scale is not None:
            step *= self.scale
        return torch.linalg.vector_norm(step, dim=-1).square_() / step.shape[-1]

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
