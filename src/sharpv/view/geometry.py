"""Which pixels of the clip's own pictures a visual token saw.

A processor stretches a picture or cuts its middle out, a tower may leave a margin unread, and tokens are pooled, merged
or shuffled patches. All of it comes to this: the grid of tokens lies evenly over one window of the picture
(:class:`sharpv.models.Seen` says which), and a frame of tokens stands for one picture or several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models import Seen


@dataclass(frozen=True)
class Window:
    """A part of a picture, as shares of its height and width."""

    top: float
    left: float
    height: float
    width: float

    def cell(self, place: int, rows: int, columns: int) -> Window:
        """The part of it under one cell of a grid, counted in raster order.

        >>> Window(0, 0, 1, 1).cell(5, rows=2, columns=4)
        Window(top=0.5, left=0.25, height=0.5, width=0.25)
        """
        row, column = divmod(place, columns)
        height, width = self.height / rows, self.width / columns
        return Window(self.top + row * height, self.left + column * width, height, width)


def window(seen: Seen, height: int, width: int) -> Window:
    """The part of a picture of ``height`` x ``width`` pixels that lies under a frame's tokens."""
    share_y, share_x = (min(height, width) / side if seen.cropped else 1.0 for side in (height, width))
    # the margin that a tower leaves lies at the bottom and at the right of what was cut out
    return Window((1 - share_y) / 2, (1 - share_x) / 2, share_y * seen.height, share_x * seen.width)


def pictures(seen: Seen, frame: int, frames: int, count: int) -> range:
    """Which of the clip's ``count`` pictures one of ``frames`` frames of tokens was made from.

    >>> pictures(Seen(pictures=2), frame=2, frames=3, count=5)
    range(4, 5)
    """
    if seen.pictures is None:  # averaged down, as adaptive pooling has it
        return range(frame * count // frames, -(-(frame + 1) * count // frames))
    start = frame * seen.pictures
    return range(start, min(start + seen.pictures, count))


def frames_with(seen: Seen, frames: int, count: int, wanted: Sequence[int]) -> list[int]:
    """The frames of tokens in which each of the wanted pictures comes first, each frame once, in order."""
    shown = [pictures(seen, frame, frames, count) for frame in range(frames)]
    return sorted({next(frame for frame, some in enumerate(shown) if picture in some) for picture in wanted})
