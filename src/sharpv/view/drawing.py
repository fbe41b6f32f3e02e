"""What is drawn of each video: its pictures, and the paths that lie over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import geometry, pictures, plots

if TYPE_CHECKING:
    from ..report import Report, VideoReport


@dataclass(frozen=True)
class ShownClip:
    """A clip made ready to be shown.

    Attributes:
        height, width: of its pictures, in pixels.
        images: each picture as a data URI.
        cuts: pictures with which a new scene begins.
        times: seconds of each picture, where they are known.
    """

    height: int
    width: int
    images: list[str]
    cuts: list[int]
    times: Sequence[float] | None


def listed(clips: Any) -> list[Any]:
    """One clip, several or none, as a list."""
    return [] if clips is None else list(clips) if isinstance(clips, (list, tuple)) else [clips]


def shown_clips(clips: Any) -> list[ShownClip]:
    """Clips as they are given to :func:`.page.page`, read once for all questions."""
    given = [pictures.frames_of(clip) for clip in listed(clips)]
    images = pictures.encode_all(given) if given else []
    return [
        ShownClip(frames.shape[1], frames.shape[2], some, pictures.cuts(frames), getattr(clip, "timestamps", None))
        for clip, frames, some in zip(listed(clips), given, images, strict=True)
    ]


def require(report: Report, counts: Sequence[int]) -> None:
    """Refuse clips of so many pictures that are not those of the report; none at all are accepted.

    Raises:
        ValueError: more or fewer clips than videos, or a clip of another length.
    """
    if not counts:
        return
    if len(counts) != len(report.videos):
        raise ValueError(f"the report is about {len(report.videos)} videos, got {len(counts)} clips")
    for index, (video, count) in enumerate(zip(report.videos, counts, strict=True)):
        each = video.seen.pictures
        least = video.frames if each is None else (video.frames - 1) * each + 1
        most = None if each is None else video.frames * each
        if count < least or (most is not None and count > most):
            wanted = f"{least} or more" if most is None else f"{least}" if least == most else f"{least} to {most}"
            raise ValueError(
                f"video {index} of the report has {video.frames} frames of tokens, made from {wanted} pictures, but "
                f"the clip has {count}"
            )


def draw(video: VideoReport, key: str, clip: ShownClip | None) -> dict[str, Any]:
    """What the templates show of a video, whose names on the page begin with ``key``."""
    if clip is None:
        window, ratio = geometry.Window(0, 0, 1, 1), video.width / video.height
        shown: list[list[str | None]] = [[None]] * video.frames
        names, cuts = [f"frame {frame}" for frame in range(video.frames)], []
    else:
        window, ratio = geometry.window(video.seen, clip.height, clip.width), clip.width / clip.height
        count = len(clip.images)
        of = [geometry.pictures(video.seen, frame, video.frames, count) for frame in range(video.frames)]
        shown = [[clip.images[picture] for picture in some] for some in of]
        names = [_name(frame, some.start, clip.times) for frame, some in enumerate(of)]
        cuts = geometry.frames_with(video.seen, video.frames, count, clip.cuts)
    cells = [
        {
            "name": names[frame],
            "pictures": some,
            "kept": len(video.kept[frame]),
            "dropped": pictures.dropped(video, frame),
            "outline": pictures.outline(video.kept[frame], video.height, video.width),
            "heat": pictures.heat(video, frame) if video.heat else [],
            "encoded": _encoded(video, frame),
        }
        for frame, some in enumerate(shown)
    ]
    return {
        "report": video,
        "key": key,
        "cells": cells,
        "window": window,
        "ratio": ratio,
        "fused": max(map(len, shown)),
        "grid": video.grid,
        "cropped": window.height < 1 or window.width < 1,
        "timeline": plots.timeline(video, key, names, cuts),
        "cuts": cuts,
    }


def _name(frame: int, picture: int, times: Sequence[float] | None) -> str:
    return f"frame {frame}" if times is None else f"frame {frame}, {times[picture]:.1f} s"


def _encoded(video: VideoReport, frame: int) -> dict[str, Any] | None:
    """An outline around the patches that went through the tower, where some did not."""
    if video.grid is None or video.encoded is None:
        return None
    return {"outline": pictures.outline(video.encoded[frame], *video.grid), "count": len(video.encoded[frame])}
