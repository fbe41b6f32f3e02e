"""From a clip on disk to frames and timestamps, and the metadata that transformers' video processors want with them."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import number, whole
from .decoding import Timetable, VideoError, decode, from_decoder, from_packets

MAX_FRAMES = 1024  # default guard of `read_video`: more frames than most video language models take
CLOCK_SLACK = 0.002  # seconds: Matroska and FLV round times to a millisecond
GRID_SLACK = 0.010  # seconds a frame may lie off the constant-rate grid before `metadata` counts milliseconds instead


@dataclass(frozen=True, eq=False)
class Clip:
    """Decoded frames and the times at which they are shown.

    Attributes:
        frames: ``(T, H, W, 3)`` uint8 RGB, upright (the rotation in the file's metadata is applied).
        timestamps: ``(T,)`` float64, seconds after the clip's first frame, strictly rising.
        fps: average frames per second of the source, not of the sample.
        duration: seconds, from the first frame to the end of the last.
        source: the file.
    """

    frames: NDArray[np.uint8] = field(repr=False)
    timestamps: NDArray[np.float64] = field(repr=False)
    fps: float
    duration: float
    source: Path

    def metadata(self) -> dict[str, Any]:
        """The fields of transformers' ``VideoMetadata``, for ``video_metadata=`` with ``do_sample_frames=False``.

        Qwen3-VL writes ``frames_indices / fps`` into the prompt as seconds; Qwen2.5-VL's seconds per frame come from
        ``len(frames_indices) / total_num_frames * fps``. At a constant rate these are the source's frame numbers
        and rate; at a variable rate no frame number tells the time, so they count milliseconds (fps is 1000).
        Without ``do_sample_frames=False`` some processors would sample the sampled frames again.

        >>> clip = read_video("clip.mp4", frames=8)
        >>> inputs = processor(text=prompt, videos=[clip.frames], video_metadata=[clip.metadata()],
        ...                    do_sample_frames=False, return_tensors="pt")
        """
        rate = self.fps
        if np.abs(np.rint(self.timestamps * rate) / rate - self.timestamps).max() > GRID_SLACK:
            rate = 1000.0
        indices: list[int] = np.rint(self.timestamps * rate).astype(int).tolist()
        return {
            "total_num_frames": max(round(self.duration * rate), indices[-1] + 1),
            "fps": rate,
            "width": self.frames.shape[2],
            "height": self.frames.shape[1],
            "duration": self.duration,
            "video_backend": "pyav",
            "frames_indices": indices,
        }


def read_video(
    path: str | PathLike[str],
    *,
    frames: int | None = None,
    fps: float | None = None,
    max_pixels: int | None = None,
    max_frames: int = MAX_FRAMES,
) -> Clip:
    """Read a clip: ``frames`` frames spread evenly over it, or ``fps`` frames a second, or all of them.

    Args:
        path: the file. Of several video streams FFmpeg's best is taken; a still picture is a clip of one frame.
        frames: n moments ``i * duration / n``, i = 0 .. n - 1, and at each the frame shown then: at a constant rate
            exactly frame ``i * total // n``, transformers' default. At a variable rate a frame counts as shown from
            2 ms before its time (a quarter of the mean step, if that is less), since files round times. No frame comes
            twice: a clip with fewer than n frames gives all it has, and moments that fall on one long-held frame move
            on to the frames after it.
        fps: moments 0, 1 / fps, 2 / fps, ...; a frame held over several moments comes once.
        max_pixels: frames of more pixels (H x W) are scaled down to fit, their aspect kept; never up.
        max_frames: refuse to return more frames than this.

    Interlaced video, non-square pixels and HDR transfer curves are passed through as stored. Only the parts that
    hold chosen frames are decoded, so damage elsewhere may go unseen; a file that ends early is refused.

    Raises:
        VideoError: the clip cannot be read as asked.

    >>> clip = read_video("clip.mp4", frames=8, max_pixels=448 * 448)
    >>> clip.frames.shape, clip.timestamps
    ((8, 334, 595, 3), array([0.  , 1.24, ...]))
    """
    path = Path(path)
    if frames is not None and fps is not None:
        raise VideoError(path, f"frames={frames} and fps={fps} were both given, pass one of them")
    try:
        frames = None if frames is None else whole("frames", frames, least=1)
        fps = None if fps is None else number("fps", fps, above=0)
        max_pixels = None if max_pixels is None else whole("max_pixels", max_pixels, least=1)
        max_frames = whole("max_frames", max_frames, least=1)
    except (TypeError, ValueError) as error:
        raise VideoError(path, str(error)) from error
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise VideoError(path, "there is no such file") from error
    except (OSError, ValueError) as error:
        raise VideoError(path, f"it cannot be opened ({error})") from error
    if not stat.S_ISREG(mode):
        raise VideoError(path, "it is a directory" if stat.S_ISDIR(mode) else "it is not a regular file")

    for listing in (from_packets, from_decoder):
        table = listing(path)
        if table is None:
            continue
        picks = _choose(table, frames, fps)
        if len(picks) > max_frames:
            asked = f"{len(picks):,} frames are more than max_frames={max_frames:,}"
            raise VideoError(path, f"{asked}, ask for fewer with frames= or fps=")
        pictures = decode(path, table, picks.tolist(), max_pixels)
        if pictures is not None:
            return Clip(pictures, table.times[picks], table.rate, table.duration, path)
    raise VideoError(path, "decoding it twice gave different frames")


def _constant_step(table: Timetable) -> float | None:
    """Seconds from frame to frame where all of them lie on one grid, but for the rounding of the file's clock."""
    places = np.arange(len(table.times))
    mean = table.times[-1] / max(len(places) - 1, 1) or table.duration
    for step in (1 / table.rate, mean):
        if np.abs(table.times - places * step).max() <= min(CLOCK_SLACK, step / 4):
            return float(step)
    return None


def _choose(table: Timetable, frames: int | None, fps: float | None) -> NDArray[np.intp]:
    """Numbers of the frames to return, strictly rising."""
    total, step = len(table.times), _constant_step(table)
    if step is None:
        early = table.times - min(CLOCK_SLACK, table.duration / len(table.times) / 4)
    else:  # the clock's rounding is known: a moment that falls on a frame's time is that frame's
        early = np.asarray((np.arange(total) - 1e-6) * step, np.float64)
    if fps is not None:  # a frame is chosen when a moment k / fps falls between its start and the next frame's
        moments = np.ceil(np.append(early, table.duration + early[0]) * fps)
        return np.flatnonzero(np.diff(moments) > 0)
    if frames is None or frames >= total:
        return np.arange(total)
    order = np.arange(frames)
    if step is not None:
        return order * total // frames
    picks = np.searchsorted(early, order * table.duration / frames, side="right") - 1
    return np.minimum(np.maximum.accumulate(picks - order) + order, total - frames + order)
