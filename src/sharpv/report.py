"""What happened: kept tokens per video and frame, what each layer forgot, bytes; as a line, as text, as data.

Three retention figures, never mixed: of visual tokens before the LLM, averaged over layers (tokens x layers that still
hold them), and of KV cache bytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor
from transformers import Cache

from .cache import kv_bytes, kv_bytes_of_length
from .importance import dissimilarity
from .memory import MemoryTrace
from .prompt import PrunedPrompt, PrunedVideo

EMPTY_SHARE = 0.02
"""Over-pruning: a video, or four frames in a row, of which less than this share is kept."""
EMPTY_FRAMES = 4
DUPLICATE = 0.2
"""Redundancy kept: a survivor whose Dissim to the survivor at its place one frame before is below this (cos > 0.98)."""
DUPLICATE_SHARE = 0.5


@dataclass(frozen=True)
class Report:
    """One pruned forward pass or generation.

    Attributes:
        method: the method's repr, the experiment's log line.
        videos: one :class:`PrunedVideo` per video, in prompt order.
        layers: number of decoder layers.
        memory: trace of the memory stage, or None when it was off.
        kv_bytes: measured on the stored keys and values at the end, or None without a dynamic cache.
        dense_kv_bytes: what the full prompt would have stored in the same run, from the stored tensors' own shapes.
    """

    method: str
    videos: list[PrunedVideo]
    layers: int
    memory: MemoryTrace | None
    kv_bytes: int | None
    dense_kv_bytes: int | None

    @property
    def total(self) -> int:
        """Visual tokens before pruning."""
        return sum(video.layout.patches for video in self.videos)

    @property
    def kept(self) -> int:
        """Visual tokens that the language model read."""
        return sum(sum(video.kept_per_frame) for video in self.videos)

    @property
    def repeated(self) -> int:
        """Frames that stage 0 did not encode because they repeat another."""
        return sum(video.layout.frames - video.encoded for video in self.videos)

    @property
    def retention(self) -> float:
        """Kept share of the visual tokens, before the LLM."""
        return self.kept / self.total

    @cached_property
    def measured(self) -> list[list[float | None]]:
        """What the memory criterion measured, ``[layer][sample]``; None where a sample has no video.

        Empty when the stage was off; a layer that cannot forget (a sliding window, a recurrent state) has an empty row.
        """
        if self.memory is None or not self.memory.measured:
            return []
        rows = [self.memory.measured[i].tolist() if i in self.memory.measured else [] for i in range(self.layers)]
        return [[None if math.isnan(value) else value for value in row] for row in rows]

    @cached_property
    def forgotten(self) -> list[list[bool]]:
        """Whether each layer forgot the visual entries, ``[layer][sample]``; as :attr:`similarity`."""
        if self.memory is None or not self.memory.forgotten:
            return []
        return [self.memory.forgotten[i].tolist() if i in self.memory.forgotten else [] for i in range(self.layers)]

    @property
    def layer_retention(self) -> float:
        """Kept share of visual tokens x layers: what the layers still hold after the memory stage."""
        per_sample: dict[int, int] = {}
        for video in self.videos:
            per_sample[video.sample] = per_sample.get(video.sample, 0) + sum(video.kept_per_frame)
        lost = sum(per_sample.get(sample, 0) for row in self.forgotten for sample, gone in enumerate(row) if gone)
        if self.memory is not None:
            lost += sum(int(gone.sum()) for gone in self.memory.withdrawn.values())
        return (self.kept * self.layers - lost) / (self.total * self.layers)

    @property
    def kv_retention(self) -> float | None:
        """Stored bytes of the KV cache (text included) as a share of the dense cache's, or None without a cache."""
        if self.kv_bytes is None or not self.dense_kv_bytes:
            return None
        return self.kv_bytes / self.dense_kv_bytes

    @cached_property
    def warnings(self) -> list[str]:
        """The paper's three failure signatures, in words, where the figures show them."""
        found = []
        for index, video in enumerate(self.videos):
            found += [f"video {index}: {text}" for text in _video_warnings(video)]
        for sample in sorted({video.sample for video in self.videos}) if self.forgotten else []:
            able = [layer for layer, row in enumerate(self.forgotten) if row]
            remembering = [layer for layer in able if not self.forgotten[layer][sample]]
            start = next((layer for layer in able if layer > max(remembering, default=-1)), None)
            if start is not None:
                found.append(
                    f"sample {sample}: degraded cache, every layer from {start} of {self.layers} on has forgotten the "
                    "video; answers of several tokens may lose it (memory=None keeps it)"
                )
        return found

    def __str__(self) -> str:
        parts = [f"kept {self.kept:,} of {self.total:,} visual tokens ({_both(self.retention)})"]
        if self.repeated:
            frames = sum(video.layout.frames for video in self.videos)
            parts.append(f"encoded {frames - self.repeated} of {frames} frames")
        if self.forgotten:
            dropped = sum(any(row) for row in self.forgotten)
            parts.append(f"visual KV dropped in {dropped} of {self.layers} layers")
        if self.memory is not None and self.memory.withdrawn:
            parts.append(f"kept {_percent(self.layer_retention)} of visual tokens x layers")
        if self.kv_bytes is not None and self.dense_kv_bytes is not None:
            parts.append(
                f"KV cache {_size(self.kv_bytes)}, dense {_size(self.dense_kv_bytes)} "
                f"({_percent(self.kv_bytes / self.dense_kv_bytes)})"
            )
        return "sharpv: " + "; ".join(parts)

    def text(self) -> str:
        """The line, then three retentions, counts per frame, the layer curve and warnings."""
        lines = [str(self), f"  method: {self.method}"]
        lines.append(f"  retention before the LLM: {_both(self.retention)}")
        lines.append(f"  retention averaged over layers: {_both(self.layer_retention)}")
        if self.kv_retention is not None:
            lines.append(f"  retention of KV bytes, text included: {_both(self.kv_retention)}")
        for index, video in enumerate(self.videos):
            size = video.layout.tokens_per_frame
            lines.append(f"  video {index}, kept of {size} a frame: {' '.join(map(str, video.kept_per_frame))}")
        quantity = self.memory.quantity if self.memory else ""
        for layer, (row, gone) in enumerate(zip(self.measured, self.forgotten, strict=True)):
            values = " ".join(
                "-" if value is None else f"{value:.2f}{'*' if flag else ''}"
                for value, flag in zip(row, gone, strict=True)
            )
            lines.append(f"  layer {layer}, {quantity} (* forgot the video): {values}")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; shares are kept shares in [0, 1]."""
        return {
            "method": self.method,
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
                    "frames": video.layout.frames,
                    "frames_encoded": video.encoded,
                    "tokens_per_frame": video.layout.tokens_per_frame,
                    "kept_per_frame": video.kept_per_frame,
                }
                for video in self.videos
            ],
            "memory": {
                "quantity": self.memory.quantity,
                "measured": self.measured,
                "forgotten": self.forgotten,
            }
            if self.memory
            else None,
            "warnings": self.warnings,
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict())


def make_report(
    method: str, prompt: PrunedPrompt, layers: int, memory: MemoryTrace | None, cache: Cache | None
) -> Report:
    """Measure the cache as it stands and put everything together."""
    stored = dense = None
    if cache is not None:
        # gradient checkpointing leaves the cache empty
        stored = kv_bytes(cache) or None
        dense = kv_bytes_of_length(cache, int(cache.get_seq_length()) + prompt.removed) if stored else None
    return Report(method, prompt.videos, layers, memory, stored, dense)


def _video_warnings(video: PrunedVideo) -> list[str]:
    found = []
    size = video.layout.tokens_per_frame
    share = sum(video.kept_per_frame) / video.layout.patches
    if share < EMPTY_SHARE:
        found.append(f"over-pruned, {_both(share)}; min_tokens_per_frame sets a floor")
    run = start = 0
    for frame, kept in enumerate([*video.kept_per_frame, size]):
        if kept < EMPTY_SHARE * size:
            run += 1
            continue
        if run >= EMPTY_FRAMES and share >= EMPTY_SHARE:
            found.append(f"over-pruned scene, frames {start} to {frame - 1}; min_tokens_per_frame sets a floor")
        run, start = 0, frame + 1
    duplicates = _duplicate_share(video)
    if duplicates > DUPLICATE_SHARE:
        found.append(f"redundancy kept, {_percent(duplicates)} of the survivors nearly repeat the frame before them")
    return found


def _duplicate_share(video: PrunedVideo) -> float:
    """Share of survivors that nearly equal the survivor at the same place in the frame before."""
    keep: Tensor = video.keep
    both = keep[1:] & keep[:-1]
    if not both.any():
        return 0.0
    row = keep.flatten().cumsum(0).view_as(keep) - 1
    features = video.features
    near = dissimilarity(features[row[1:][both]], features[row[:-1][both]]) < DUPLICATE
    return int(near.sum()) / len(features)


def _both(share: float) -> str:
    return f"kept {_percent(share)}, pruned {_percent(1 - share)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
