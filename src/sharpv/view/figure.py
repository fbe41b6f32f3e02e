"""A report as a matplotlib figure, for papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import whole
from . import geometry, pictures
from .drawing import listed, require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..report import Report, VideoReport

KEPT, CUT = "#0072b2", "#b34700"
DIM = 0.74


def figure(report: Report, clip: Any, frames: int) -> Figure:
    """Of each video a row of frames, dropped tokens dimmed, and below it the kept tokens of all its frames."""
    frames = whole("frames", frames, least=1)
    clips = [pictures.frames_of(each) for each in listed(clip)]
    require(report, list(map(len, clips)))
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a figure needs matplotlib: pip install 'sharpv[plot]'") from error
    most = max(min(frames, video.frames) for video in report.videos)
    made = Figure(figsize=(1.5 * most + 1, 2.8 * len(report.videos)), layout="constrained")
    rows = made.add_gridspec(2 * len(report.videos), most)
    for index, video in enumerate(report.videos):
        chosen = np.linspace(0, video.frames - 1, min(frames, video.frames)).round().astype(int).tolist()
        for column, frame in enumerate(chosen):
            axes = made.add_subplot(rows[2 * index, column])
            _draw_frame(axes, video, frame, clips[index] if clips else None)
        axes = made.add_subplot(rows[2 * index + 1, :])
        axes.bar(range(video.frames), video.kept_per_frame, color=KEPT)
        for cut in _cuts(video, clips[index]) if clips else ():
            axes.axvline(cut - 0.5, color=CUT, linestyle="--", linewidth=1)
        axes.set(xlabel="frame", ylabel=f"kept of {video.tokens_per_frame}", ylim=(0, video.tokens_per_frame))
    return made


def _draw_frame(axes: Axes, video: VideoReport, frame: int, clip: pictures.Pictures | None) -> None:
    axes.set_title(f"{frame}: {len(video.kept[frame])}", fontsize=8)
    axes.set_axis_off()
    kept = np.zeros(video.tokens_per_frame, bool)
    kept[video.kept[frame]] = True
    shade = np.zeros((video.height, video.width, 4))
    shade[..., 3] = np.where(kept, 0.0, DIM).reshape(video.height, video.width)
    if clip is None:
        axes.set_facecolor(KEPT)
        axes.imshow(np.full((1, 1, 3), [0.0, 0.45, 0.7]), extent=(0, video.width, video.height, 0))
        axes.imshow(shade, extent=(0, video.width, video.height, 0), interpolation="nearest")
        return
    first = geometry.pictures(video.seen, frame, video.frames, len(clip)).start
    height, width = clip.shape[1:3]
    part = geometry.window(video.seen, height, width)
    left, top = part.left * width, part.top * height
    # beside the window nothing is seen: it is as dark as what was dropped
    dark = np.full((height, width, 4), [0, 0, 0, DIM])
    rows, columns = (
        slice(round(top), round(top + part.height * height)),
        slice(round(left), round(left + part.width * width)),
    )
    dark[rows, columns] = 0
    axes.imshow(clip[first])
    axes.imshow(dark)
    extent = (left, left + part.width * width, top + part.height * height, top)
    axes.imshow(shade, extent=extent, interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0))


def _cuts(video: VideoReport, clip: pictures.Pictures) -> list[int]:
    return geometry.frames_with(video.seen, video.frames, len(clip), pictures.cuts(clip))
