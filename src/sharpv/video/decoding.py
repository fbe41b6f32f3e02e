"""What PyAV (whose wheel carries FFmpeg) is asked: when each frame of a clip is shown, and the pixels of some of them.

:func:`from_packets` lists the frames without decoding. Where packets carry no times (raw streams), or promise a frame
that the decoder then does not show, :func:`from_decoder` makes the list. :func:`decode` jumps from key frame to key
frame and keeps only the frames asked for: memory holds those, never the clip.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import av.error
import av.filter
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import SideData, Type
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

MAX_BYTES = 4 * 2**30  # of decoded RGB
JUMP = 16  # frames to skip before seeking to a key frame pays
AVCOL_SPC_RGB, AVCOL_SPC_UNSPECIFIED, SWS_CS_DEFAULT = 0, 2, 5  # FFmpeg's numbers
AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG = 1, 2
KINDS = 64  # of side data, more than FFmpeg knows
TEXT_CODECS = {"ansi", "bintext", "xbin", "idf"}  # FFmpeg draws text files as video; nobody means that


class VideoError(ValueError):
    """A clip cannot be read as asked; the message is one sentence with the file and the reason."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"Cannot read video {str(path)!r}: {reason}.")


@dataclass(frozen=True, eq=False)
class Timetable:
    """When every frame of a stream is shown, in display order."""

    times: NDArray[np.float64]
    """``(total,)`` seconds, the first is 0."""
    duration: float
    rate: float
    """Frames per second, average."""
    pts: list[int] | None = None
    """The decoder's name of each frame; None where frames are known by their number alone."""
    keys: tuple[int, ...] = (0,)
    """Numbers of the frames at which decoding can begin."""


def from_packets(path: Path) -> Timetable | None:
    """List the frames without decoding; None where the packets do not tell."""
    with _open(path) as (container, stream):
        matroska, mp4 = "matroska" in container.format.name, "mp4" in container.format.name
        shown: dict[int, tuple[int, bool]] = {}  # pts -> ticks it lasts, whether decoding can begin there
        end, cut = 0.0, False
        try:
            for packet in container.demux() if matroska else container.demux(stream):
                if packet.pts is not None and packet.time_base:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream_index != stream.index or not packet.size:
                    continue
                if packet.pts is None:
                    return None
                cut = packet.is_corrupt
                if not packet.is_discard:
                    shown[packet.pts] = (packet.duration or 0, packet.is_keyframe)
        except av.error.FFmpegError as error:
            raise VideoError(path, f"reading failed after {_count(len(shown))} ({_said(error)})") from error
        tick, promised = float(stream.time_base or 0), 0.0  # seconds
        if mp4 and stream.duration:
            promised = stream.duration * tick + (stream.start_time or 0) * tick
        elif matroska and container.duration:  # covers all streams
            promised = container.duration / av.time_base
        if cut or end < 0.95 * promised - 1:
            raise VideoError(path, f"it is cut off or damaged after {_count(len(shown))}, at {end:.1f} s")
        if not shown:
            raise VideoError(path, "it holds no frames")
        pts = sorted(shown)
        times = (np.array(pts) - pts[0]) * tick
        keys = tuple(number for number, name in enumerate(pts) if shown[name][1] or number == 0)
        return _table(stream, times, shown[pts[-1]][0] * tick, pts, keys)


def from_decoder(path: Path) -> Timetable:
    """List the frames by decoding them all, keeping none."""
    with _open(path) as (container, stream):
        pts = [frame.pts for frame in _frames(path, container, stream)]
        if not pts:
            raise VideoError(path, "it holds no frames")
        rate = float(stream.guessed_rate or stream.average_rate or 25)
        known = [name for name in pts if name is not None]
        if len(known) == len(pts) and all(a < b for a, b in pairwise(known)):
            return _table(stream, (np.array(known) - known[0]) * float(stream.time_base or 0), 1 / rate)
        return Timetable(np.arange(len(pts)) / rate, len(pts) / rate, rate)


def _table(
    stream: VideoStream,
    times: NDArray[np.float64],
    last: float,
    pts: list[int] | None = None,
    keys: tuple[int, ...] = (0,),
) -> Timetable:
    """Fill in what containers leave out or get wrong: how long the last frame lasts (seconds) and the average rate."""
    named = float(stream.average_rate or 0)
    if last <= 0:
        last = float(np.median(np.diff(times))) if len(times) > 1 else 1 / (named or 25)
    duration = float(times[-1]) + last
    rate = len(times) / duration
    return Timetable(times, duration, named if abs(named - rate) < 0.02 * rate else rate, pts, keys)


def decode(path: Path, table: Timetable, picks: list[int], max_pixels: int | None) -> NDArray[np.uint8] | None:
    """Pixels of the picked frames, uint8 (T, H, W, 3); None if the decoder does not show one that the table lists."""
    pictures: NDArray[np.uint8] | None = None
    width = height = done = 0
    with _open(path) as (container, stream):
        for frame in _picked(path, container, stream, table, picks):
            if frame.is_corrupt:
                raise VideoError(path, f"the frame at {table.times[picks[done]]:.2f} s is damaged")
            if pictures is None:
                shrink = min(1.0, math.sqrt((max_pixels or math.inf) / (frame.width * frame.height)))
                width, height = (max(1, math.floor(side * shrink)) for side in (frame.width, frame.height))
                if (size := len(picks) * height * width * 3) > MAX_BYTES:
                    asked = f"{_count(len(picks))} of {width} x {height} pixels take {size / 2**30:.1f} GiB"
                    reason = f"{asked}, more than {MAX_BYTES / 2**30:g} GiB, ask for fewer or set max_pixels="
                    raise VideoError(path, reason)
            scaling = "AREA" if (frame.width, frame.height) != (width, height) else None
            picture = _upright(frame.reformat(width, height, "rgb24", interpolation=scaling, **_colours(frame)), frame)
            if pictures is None:
                pictures = np.empty((len(picks), *picture.shape), np.uint8)
            if picture.shape != pictures.shape[1:]:
                raise VideoError(path, f"it is turned midway, at {table.times[picks[done]]:.2f} s")
            pictures[done] = picture
            done += 1
    return pictures if done == len(picks) else None


def _picked(
    path: Path, container: InputContainer, stream: VideoStream, table: Timetable, picks: list[int]
) -> Iterator[VideoFrame]:
    """The picked frames in order, decoding little else; stops at one that the decoder does not show."""
    pts, done, start = table.pts, 0, 0
    while True:
        if pts is not None and start > 0:
            try:
                container.seek(pts[start], stream=stream)
            except av.error.FFmpegError:  # some containers cannot; the caller then lists and decodes from the start
                return
        for number, frame in enumerate(_frames(path, container, stream, start), start):
            name, wanted = (number, picks[done]) if pts is None else (frame.pts, pts[picks[done]])
            if name is None or name > wanted:
                return
            if name < wanted:
                continue
            yield frame
            done += 1
            if done == len(picks):
                return
            start = table.keys[bisect_right(table.keys, picks[done]) - 1]
            if start - picks[done - 1] > JUMP:
                break
        else:
            return


def _frames(path: Path, container: InputContainer, stream: VideoStream, start: int = 0) -> Iterator[VideoFrame]:
    """Decode from where the container stands; `start` is the number of the first frame, for the error."""
    number = start
    try:
        for frame in container.decode(stream):
            number += 1
            yield frame
    except av.error.FFmpegError as error:
        raise VideoError(path, f"decoding failed after {_count(number)} ({_said(error)})") from error


def _colours(frame: VideoFrame) -> dict[str, int]:
    """The frame's own matrix and range, said aloud: PyAV before 17 takes all YUV for BT.601 unless told otherwise."""
    if frame.colorspace == AVCOL_SPC_RGB:
        return {}
    matrix = SWS_CS_DEFAULT if frame.colorspace == AVCOL_SPC_UNSPECIFIED else int(frame.colorspace)
    limited_unless_said = int(frame.color_range) or AVCOL_RANGE_MPEG
    return {
        "src_colorspace": matrix,
        "src_color_range": limited_unless_said,
        "dst_colorspace": AVCOL_SPC_RGB,
        "dst_color_range": AVCOL_RANGE_JPEG,
    }


def _upright(rgb: VideoFrame, frame: VideoFrame) -> NDArray[np.uint8]:
    """Apply the frame's display matrix: phones store how they were held, in quarter turns, front cameras a mirror."""
    picture = np.asarray(rgb.to_ndarray(), np.uint8)
    matrix = _side_data(frame).get("DISPLAYMATRIX")
    if matrix is None:
        return picture
    # x' = a x + c y, y' = b x + d y, up to a shift
    a, b, _, c, d = np.frombuffer(bytes(cast(SideData, matrix)), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _side_data(frame: VideoFrame) -> Mapping[Any, Any]:
    """What lies beside a frame's pixels. PyAV reads none of it where one kind is newer than PyAV (EXIF): drop those."""
    try:
        return cast("Mapping[Any, Any]", frame.side_data)
    except ValueError:
        graph = av.filter.Graph()
        base = Fraction(frame.time_base or 1)
        buffer = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=base)
        known: set[Any] = {kind.value for kind in Type}
        drops = [graph.add("sidedata", f"mode=delete:type={kind}") for kind in range(KINDS) if kind not in known]
        for one, other in pairwise([buffer, *drops, graph.add("buffersink")]):
            one.link_to(other)
        graph.configure()
        graph.push(frame)
        return cast("Mapping[Any, Any]", cast(VideoFrame, graph.pull()).side_data)


@contextmanager
def _open(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        container = av.open(str(path.absolute()), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        what = "it cannot be opened" if isinstance(error, OSError) else "it is not a video or its index is missing"
        raise VideoError(path, f"{what} ({_said(error)})") from error
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        streams = [s for s in streams if s.codec_context is not None and s.codec_context.name not in TEXT_CODECS]
        if not streams:
            kinds = sorted({s.type for s in container.streams} - {"video"})
            raise VideoError(path, f"it has no video stream, only {' and '.join(kinds) or 'text or cover art'}")
        best = container.streams.best("video")
        stream = best if best in streams else streams[0]
        stream.thread_type = "AUTO"
        try:
            yield container, stream
        except av.error.FFmpegError as error:
            raise VideoError(path, f"FFmpeg gave up on it ({_said(error)})") from error


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _count(frames: int) -> str:
    return f"{frames:,} frame{'' if frames == 1 else 's'}"
