"""From what a request left on its device to a report of plain numbers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .kvcache.memory import MemoryTrace
from .prompt.pruned import PrunedPrompt, PrunedVideo
from .report import Report, VideoReport


def make_report(
    config: str, layers: int, prompt: PrunedPrompt, trace: MemoryTrace | None, kv_bytes: tuple[int, int] | None
) -> Report:
    """Read what is still on the device, and put everything together."""
    stored, dense = kv_bytes or (None, None)
    videos = [_video(video) for video in prompt.videos]
    if trace is None:
        return Report(config, layers, videos, kv_bytes=stored, dense_kv_bytes=dense)
    measured = [trace.measured[i].tolist() if i in trace.measured else [] for i in range(layers)]
    forgotten = [trace.forgotten[i].tolist() if i in trace.forgotten else [] for i in range(layers)]
    return Report(
        config,
        layers,
        videos,
        trace.quantity,
        [[None if math.isnan(value) else value for value in row] for row in measured] if trace.measured else [],
        forgotten if trace.forgotten else [],
        sum(int(gone.sum()) for gone in trace.withdrawn.values()),
        stored,
        dense,
    )


def _video(video: PrunedVideo) -> VideoReport:
    keep = video.keep.cpu().numpy()
    layout, plan = video.layout, video.plan
    kept = [np.flatnonzero(frame).tolist() for frame in keep]
    return VideoReport(
        video.sample,
        layout.height,
        layout.width,
        layout.patches,
        kept,
        int(video.repeats),
        None if plan is None else plan.grid,
        None if plan is None else [np.flatnonzero(frame).tolist() for frame in plan.raster.numpy()],
        layout.seen,
        [_ranks(frame) for frame in video.scores.cpu().numpy()],
    )


def _ranks(scores: NDArray[np.float32]) -> bytes:
    """Of each score, how many of the others are lower, as a byte."""
    lower = np.sort(scores).searchsorted(scores)
    return (255 * lower / max(len(scores) - 1, 1)).round().astype(np.uint8).tobytes()
