"""The paper's failure signatures: where a report's figures show one, it is said in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .words import both, percent

if TYPE_CHECKING:
    from .report import Report, VideoReport

EMPTY_SHARE = 0.02
"""Over-pruning: a video, or four frames in a row, of which less than this share is kept."""
EMPTY_FRAMES = 4
REPEATED_SHARE = 0.5
"""Redundancy kept: more than this share of the survivors nearly repeat the survivor one frame before."""


def signatures(report: Report) -> list[str]:
    """Over-pruning, redundancy that was kept, and a cache from which the video is gone."""
    found = []
    for index, video in enumerate(report.videos):
        found += [f"video {index}: {text}" for text in _video_warnings(video)]
    for sample in sorted({video.sample for video in report.videos}) if report.forgotten else []:
        able = [layer for layer, row in enumerate(report.forgotten) if row]
        remembering = [layer for layer in able if not report.forgotten[layer][sample]]
        start = next((layer for layer in able if layer > max(remembering, default=-1)), None)
        if start is not None:
            found.append(
                f"sample {sample}: degraded cache, every layer from {start} of {report.layers} on has forgotten the "
                "video; answers of several tokens may lose it (memory=None keeps it)"
            )
    return found


def _video_warnings(video: VideoReport) -> list[str]:
    found = []
    size = video.tokens_per_frame
    share = video.kept_tokens / video.total
    if share < EMPTY_SHARE:
        found.append(f"over-pruned, {both(share)}; min_tokens_per_frame sets a floor")
    run = start = 0
    for frame, kept in enumerate([*video.kept_per_frame, size]):
        if kept < EMPTY_SHARE * size:
            run += 1
            continue
        if run >= EMPTY_FRAMES and share >= EMPTY_SHARE:
            found.append(f"over-pruned scene, frames {start} to {frame - 1}; min_tokens_per_frame sets a floor")
        run, start = 0, frame + 1
    repeated = video.repeats / max(video.kept_tokens, 1)
    if repeated > REPEATED_SHARE:
        found.append(f"redundancy kept, {percent(repeated)} of the survivors nearly repeat the frame before them")
    return found
