"""A clip's pictures, small enough to ship, and what lies over them: which tokens were kept, as outlines that scale.

The picture of a frame is stored once; whether it is shown dimmed, with heat or plain is the page's business.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..report import VideoReport

Pictures = NDArray[np.uint8]
"""``(T, H, W, 3)`` RGB."""
PIXELS = 6_000_000
"""Of all pictures of a page together."""
BYTES = 1_900_000
"""Of all pictures of a page together, before base64 makes them a third larger."""
LARGEST = 640 * 360
QUALITIES = (80, 55, 30, 10)
LEVELS = 6
"""Steps of the heat."""
CUT = 0.2
"""A cut: between two pictures this share of the pixels changes its colour, of 64 colours."""


def frames_of(clip: Any) -> Pictures:
    """The pictures of a :class:`sharpv.video.Clip`, or an array of them.

    Raises:
        TypeError, ValueError: anything but ``(T, H, W, 3)`` uint8.
    """
    frames = getattr(clip, "frames", clip)
    if not isinstance(frames, np.ndarray):
        raise TypeError(f"a clip is what read_video returns, or an array of pictures, got {type(clip).__name__}")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f"pictures must be uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")
    return frames


def encode_all(clips: Sequence[Pictures]) -> list[list[str]]:
    """Every picture as a WebP data URI, all of them within :data:`BYTES`."""
    count = sum(len(frames) for frames in clips)
    quota = min(PIXELS // count, LARGEST)
    for quality in QUALITIES:
        made = [[_webp(frame, quota, quality) for frame in frames] for frames in clips]
        if sum(len(data) for some in made for data in some) <= BYTES:
            break
    return [["data:image/webp;base64," + base64.b64encode(data).decode() for data in some] for some in made]


def _webp(frame: NDArray[np.uint8], pixels: int, quality: int) -> bytes:
    from PIL import Image

    picture = Image.fromarray(frame)
    shrink = min(1.0, (pixels / (picture.width * picture.height)) ** 0.5)
    if shrink < 1:
        size = max(round(picture.width * shrink), 1), max(round(picture.height * shrink), 1)
        picture = picture.resize(size, Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=1)
    return buffer.getvalue()


def cuts(frames: Pictures) -> list[int]:
    """Pictures with which a new scene begins, guessed from colours; a dissolve counts once.

    >>> cuts(read_video("cut.mp4", frames=8).frames)
    [5]
    """
    seen = [_colours(frame) for frame in frames]
    changed = [False, *(float(np.minimum(a, b).sum()) < 1 - CUT for a, b in pairwise(seen))]
    return [index for index in range(1, len(frames)) if changed[index] and not changed[index - 1]]


def _colours(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    step = max(min(frame.shape[:2]) // 64, 1)
    red, green, blue = np.moveaxis(frame[::step, ::step] >> 6, -1, 0).astype(int)
    counts = np.bincount((red * 16 + green * 4 + blue).ravel(), minlength=64)
    return np.asarray(counts / counts.sum())


def dropped(video: VideoReport, frame: int) -> str:
    """An SVG path over a frame's tokens that were dropped, in units of tokens."""
    kept = _grid(video.kept[frame], video.height, video.width)
    return _cells(~kept)


def outline(places: Iterable[int], height: int, width: int) -> str:
    """An SVG path around cells of a grid, in units of cells."""
    inside = np.pad(_grid(places, height, width), 1)
    down, across = inside[1:, 1:-1] != inside[:-1, 1:-1], inside[1:-1, 1:] != inside[1:-1, :-1]
    lines = [f"M{start} {row}h{end - start}" for row, line in enumerate(down) for start, end in _runs(line)]
    lines += [f"M{column} {start}v{end - start}" for column, line in enumerate(across.T) for start, end in _runs(line)]
    return "".join(lines)


def heat(video: VideoReport, frame: int) -> list[str]:
    """SVG paths over a frame's tokens, one for each of :data:`LEVELS` steps of their scores' ranks, lowest first."""
    ranks = np.frombuffer(video.heat[frame], np.uint8).reshape(video.height, video.width).astype(int)
    steps = ranks * LEVELS // 256
    return [_cells(steps == level) for level in range(LEVELS)]


def _grid(places: Iterable[int], height: int, width: int) -> NDArray[np.bool_]:
    grid = np.zeros(height * width, bool)
    grid[list(places)] = True
    return grid.reshape(height, width)


def _cells(wanted: NDArray[np.bool_]) -> str:
    return "".join(
        f"M{start} {row}h{end - start}v1h{start - end}z"
        for row, line in enumerate(wanted)
        for start, end in _runs(line)
    )


def _runs(line: Iterable[Any]) -> list[tuple[int, int]]:
    """Where a line is true: (start, end)."""
    runs, at = [], 0
    for value, some in groupby(bool(entry) for entry in line):
        length = len(list(some))
        if value:
            runs.append((at, at + length))
        at += length
    return runs
