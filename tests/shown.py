"""Reports and clips to be shown, made by hand, and what a page has to bear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sharpv.asking import Answer
from sharpv.models import Seen
from sharpv.report import Report, VideoReport
from sharpv.video import Clip

HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)> {{ 7 * 7 }} javascript:alert(1)"


def video(frames: int, height: int = 3, width: int = 4, sample: int = 0, **options: Any) -> VideoReport:
    size = height * width
    kept = [sorted({frame % size, (frame * 5 + 2) % size}) for frame in range(frames)]
    heat = [bytes(np.linspace(0, 255, size).astype(np.uint8)) for _ in range(frames)]
    return VideoReport(sample, height, width, size * frames, kept, 0, heat=heat, **options)


def report(*videos: VideoReport, **options: Any) -> Report:
    return Report("sharpv retention=0.25", 4, list(videos), kv_bytes=27_000, dense_kv_bytes=365_000, **options)


def clip(frames: int, height: int = 60, width: int = 96, seed: int = 0) -> Clip:
    pictures = np.random.default_rng(seed).integers(0, 255, (frames, height, width, 3), np.uint8)
    return Clip(pictures, np.arange(frames) / 2, 2.0, frames / 2, Path("a <b> clip.mp4"))


def said(text: str) -> Answer:
    return Answer(text, 3, 1.5, 0.5, 0.3)


CASES = {
    "one frame": ([video(1)], [clip(1)]),
    "portrait": ([video(4, 6, 3)], [clip(4, 96, 60)]),
    "two videos": ([video(4), video(3)], [clip(4), clip(3, seed=1)]),
    "cropped": ([video(4, 3, 3, seen=Seen(cropped=True))], [clip(4)]),
    "two pictures a frame": ([video(3, seen=Seen(pictures=2))], [clip(5)]),
    "averaged over time": ([video(4, seen=Seen(pictures=None))], [clip(7)]),
    "pictures alone": ([video(4)], clip(4).frames),
    "no clip": ([video(4)], None),
}
