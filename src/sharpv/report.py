"""What happened: kept tokens per video and frame, what each layer forgot, bytes; as a line, as text, as data.

Three retention figures, never mixed: of visual tokens before the LLM, averaged over layers (tokens x layers that still
hold them), and of KV cache bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .models import Seen
from .signatures import signatures
from .view.figure import figure
from .view.page import Asked, fragment, page
from .words import both, percent, size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .asking import Answer


@dataclass(frozen=True)
class VideoReport:
    """One video.

    Attributes:
        sample: its sample in the batch.
        height, width: of a frame, in visual tokens.
        total: visual tokens that the full prompt held.
        kept: of each frame, the kept tokens in raster order, counted from 0.
        repeats: survivors that nearly equal the survivor at their place one frame before (cosine above 0.98).
        grid: rows and columns of the vision tower's patches, where some were not encoded; else None.
        encoded: of each frame, the patches that went through the tower, in raster order, counted from 0; None: all.
        seen: which pixels of the clip's pictures lie under the tokens.
        heat: of each frame one byte per token in raster order: how many of the frame's tokens the method thought less
            of, 0 (none) to 255 (all others).
    """

    sample: int
    height: int
    width: int
    total: int
    kept: list[list[int]] = field(repr=False)
    repeats: int
    grid: tuple[int, int] | None = None
    encoded: list[list[int]] | None = field(default=None, repr=False)
    seen: Seen = field(default_factory=Seen)
    heat: list[bytes] = field(default_factory=list, repr=False)

    @property
    def frames(self) -> int:
        return len(self.kept)

    @property
    def tokens_per_frame(self) -> int:
        return self.height * self.width

    @property
    def kept_per_frame(self) -> list[int]:
        return [len(frame) for frame in self.kept]

    @property
    def kept_tokens(self) -> int:
        return sum(self.kept_per_frame)

    @property
    def encoded_per_frame(self) -> list[int] | None:
        """Patches that went through the tower; None: all."""
        return None if self.encoded is None else [len(frame) for frame in self.encoded]

    @property
    def patches(self) -> int:
        """Patches of all frames; 0 where every one of them was encoded."""
        return 0 if self.grid is None or self.encoded is None else self.grid[0] * self.grid[1] * len(self.encoded)


@dataclass(frozen=True)
class Report:
    """One pruned forward pass or generation, in plain numbers: it can be pickled, kept and compared.

    Attributes:
        config: how it was pruned, the experiment's log line.
        videos: one :class:`VideoReport` per video, in prompt order.
        layers: number of decoder layers.
        quantity: what the second stage measured, in words; empty where it measured nothing.
        measured: what it measured, ``[layer][sample]``; None where a sample has no video. Empty when there was none; a
            layer that cannot forget (a sliding window, a recurrent state) has an empty row.
        forgotten: whether each layer forgot the visual entries, ``[layer][sample]``, likewise.
        withdrawn: visual tokens x layers that never came so far, where tokens leave inside the model.
        kv_bytes: measured on the stored keys and values at the end, or None without a dynamic cache.
        dense_kv_bytes: what the full prompt would have stored in the same run, from the stored tensors' own shapes.

    >>> print(pruning.report)
    sharpv: kept 1,568 of 6,272 visual tokens (kept 25.0 %, pruned 75.0 %); KV cache 41 MB, dense 155 MB (26.5 %)
    """

    config: str
    layers: int
    videos: list[VideoReport]
    quantity: str = ""
    measured: list[list[float | None]] = field(default_factory=list)
    forgotten: list[list[bool]] = field(default_factory=list)
    withdrawn: int = 0
    kv_bytes: int | None = None
    dense_kv_bytes: int | None = None

    @property
    def total(self) -> int:
        """Visual tokens before pruning."""
        return sum(video.total for video in self.videos)

    @property
    def kept(self) -> int:
        """Visual tokens that the language model read."""
        return sum(video.kept_tokens for video in self.videos)

    @property
    def encoded(self) -> float:
        """Share of the patches that went through the vision tower."""
        patches = sum(video.patches for video in self.videos)
        return sum(sum(video.encoded_per_frame or ()) for video in self.videos) / patches if patches else 1.0

    @property
    def retention(self) -> float:
        """Kept share of the visual tokens, before the LLM."""
        return self.kept / self.total

    @property
    def layer_retention(self) -> float:
        """Kept share of visual tokens x layers: what the layers still hold after the memory stage."""
        per_sample: dict[int, int] = {}
        for video in self.videos:
            per_sample[video.sample] = per_sample.get(video.sample, 0) + video.kept_tokens
        lost = sum(per_sample.get(sample, 0) for row in self.forgotten for sample, gone in enumerate(row) if gone)
        lost += self.withdrawn
        return (self.kept * self.layers - lost) / (self.total * self.layers)

    @property
    def kv_retention(self) -> float | None:
        """Stored bytes of the KV cache (text included) as a share of the dense cache's, or None without a cache."""
        if self.kv_bytes is None or not self.dense_kv_bytes:
            return None
        return self.kv_bytes / self.dense_kv_bytes

    @cached_property
    def warnings(self) -> list[str]:
        """Three known failure modes, in words, where the numbers show them."""
        return signatures(self)

    def __str__(self) -> str:
        parts = [f"kept {self.kept:,} of {self.total:,} visual tokens ({both(self.retention)})"]
        if any(video.encoded is not None for video in self.videos):
            parts.append(f"encoded {percent(self.encoded)} of the patches")
        if self.forgotten:
            dropped = sum(any(row) for row in self.forgotten)
            parts.append(f"visual KV dropped in {dropped} of {self.layers} layers")
        if self.withdrawn:
            parts.append(f"kept {percent(self.layer_retention)} of visual tokens x layers")
        if self.kv_bytes is not None and self.dense_kv_bytes is not None:
            parts.append(
                f"KV cache {size(self.kv_bytes)}, dense {size(self.dense_kv_bytes)} "
                f"({percent(self.kv_bytes / self.dense_kv_bytes)})"
            )
        return "sharpv: " + "; ".join(parts)

    def text(self) -> str:
        """The line, then three retentions, counts per frame, the layer curve and warnings."""
        lines = [str(self), f"  asked for: {self.config}"]
        lines.append(f"  retention before the LLM: {both(self.retention)}")
        lines.append(f"  retention averaged over layers: {both(self.layer_retention)}")
        if self.kv_retention is not None:
            lines.append(f"  retention of KV bytes, text included: {both(self.kv_retention)}")
        for index, video in enumerate(self.videos):
            cells = video.tokens_per_frame
            lines.append(f"  video {index}, kept of {cells} a frame: {' '.join(map(str, video.kept_per_frame))}")
        for layer, (row, gone) in enumerate(zip(self.measured, self.forgotten, strict=True)):
            values = " ".join(
                "-" if value is None else f"{value:.2f}{'*' if flag else ''}"
                for value, flag in zip(row, gone, strict=True)
            )
            lines.append(f"  layer {layer}, {self.quantity} (* forgot the video): {values}")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; shares are kept shares in [0, 1]."""
        return {
            "config": self.config,
            "visual_tokens": {"kept": self.kept, "total": self.total},
            "retention": {
                "before_llm": self.retention,
                "layer_averaged": self.layer_retention,
                "kv_bytes": self.kv_retention,
            },
            "kv_bytes": {"stored": self.kv_bytes, "dense": self.dense_kv_bytes},
            "videos": [
                {
                    "sample": video.sample,
                    "frames": video.frames,
                    "patches": video.patches,
                    "encoded_per_frame": video.encoded_per_frame,
                    "tokens_per_frame": video.tokens_per_frame,
                    "kept_per_frame": video.kept_per_frame,
                }
                for video in self.videos
            ],
            "memory": {"quantity": self.quantity, "measured": self.measured, "forgotten": self.forgotten}
            if self.measured
            else None,
            "warnings": self.warnings,
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict())

    def save(
        self,
        path: str | PathLike[str],
        clip: Any = None,
        *,
        question: str = "",
        answer: Answer | None = None,
        dense: Answer | None = None,
        note: str = "",
    ) -> Path:
        """Write a page to look at: one file, for any browser, without a network. :func:`sharpv.view.page.page` takes
        several questions.

        Args:
            path: of the page, an .html file; what is there is replaced.
            clip: what :func:`sharpv.read_video` returned, or its pictures ``(T, H, W, 3)`` uint8; for several videos a
                list with one for each. None: only the grids of tokens are drawn.
            question: what was asked.
                        answer: what was answered, pruned.
            dense: what was answered without pruning.
            note: a sentence to stand below the answers.

        Raises:
            TypeError, ValueError: clips that are not what the report is about.
            OSError: the file cannot be written.

        >>> pruning.report.save("report.html", clip)
        PosixPath('report.html')
        """
        if Path(path).suffix not in (".html", ".htm"):
            raise ValueError(f"a report is saved as a page, an .html file, got {str(path)!r}")
        made = page([Asked(self, question, answer, dense, note=note)], clip)
        target = Path(path)
        target.write_text(made, encoding="utf-8")
        return target

    def figure(self, clip: Any = None, frames: int = 8) -> Figure:
        """A matplotlib figure for papers, of at most ``frames`` frames of each video spread evenly, and the kept tokens
        of all. Needs ``pip install 'sharpv[plot]'``.

        Raises:
            TypeError, ValueError: clips that are not what the report is about, a number of frames below 1.
            ImportError: matplotlib is not installed.

        >>> pruning.report.figure(clip).savefig("kept.pdf")
        """
        return figure(self, clip, frames)

    def _repr_html_(self) -> str:
        """What a notebook shows of it: the page's drawing, small; the clip's pictures it does not hold."""
        return fragment([Asked(self)], small=True)
