"""The vision side: a video's frames through the model's own tower, in pieces, and of each frame only what changed.

Both need a tower that looks at one frame at a time (for Qwen's, one temporal patch of two pictures).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..methods.budget import Budget
from ..models import Family, Layout
from ..models.base import RAW_PIXELS
from ..models.layout import FRAMES
from .asked import Encoding
from .encoded import Encoded, Plan, join_pieces, together
from .pixels import Pixels
from .rules import Rule
from .surgery import packed_pass


def require(family: Family, encoding: Encoding) -> None:
    """Refuse, with a ValueError, a family whose tower cannot do what is asked for."""
    if encoding.frames_at_once is not None and (family.frames_as is None or family.crosses_frames):
        raise ValueError(f"{family.name} does not encode frame by frame: leave frames_at_once out")
    if encoding.rule is not None and family.tower is None:
        raise ValueError(f"the vision tower of {family.name} cannot leave patches out: use encode='all'")


def encode(
    model: PreTrainedModel, family: Family, encoding: Encoding, budget: Budget, inputs: Mapping[str, Any]
) -> tuple[Encoded, dict[str, Any]]:
    """The videos' features, and the output of the other modality's encoder, by its name.

    Args:
        budget: how many tokens will be kept.

    Raises:
        ValueError: what the encoders refuse.
    """
    if encoding.stock:
        output = family.encode(model, family.modality, inputs)
        rows = sum(part.shape[:-1].numel() for part in output.pooler_output)
        videos = Encoded.of(output, family.layouts(model, inputs, rows))
    else:
        videos = encode_videos(model, family, encoding, budget, inputs)
        # an input about all tokens (VideoLLaMA 3's mask) is not cut into pieces
        rows = sum(len(part) for part in videos.rows)
        videos = replace(videos, layouts=family.layouts(model, inputs, rows))
    beside = [name for name in family.encoders if name != family.modality and inputs.get(RAW_PIXELS[name]) is not None]
    return videos, {name: family.encode(model, name, inputs) for name in beside}


def encode_videos(
    model: PreTrainedModel, family: Family, encoding: Encoding, budget: Budget, inputs: Mapping[str, Any]
) -> Encoded:
    """The videos' features, each video by itself. One host synchronisation where patches are chosen."""
    parts = split_videos(model, family, inputs)
    plans: list[Plan | None] = [None] * len(parts)
    if encoding.rule is not None:
        plans = plan_videos(model, family, encoding.rule, budget, parts, encoding.frames_at_once)
    device = inputs["input_ids"].device
    return together(
        [
            _encode_one(model, family, part, plan, encoding.frames_at_once, device)
            for part, plan in zip(parts, plans, strict=True)
        ]
    )


@dataclass(frozen=True)
class Part:
    """The pixels of one video, or of still images between videos.

    Attributes:
        frames: with frames first: ``(T, C, H, W)``, or ``(T, patches, values)``.
        layout: how its tokens will lie.
        beside: further inputs of the encoder about this video alone.
        by_picture: further inputs with one entry per frame.
    """

    frames: Tensor
    layout: Layout
    beside: Mapping[str, Tensor]
    by_picture: Mapping[str, Tensor]

    def inputs(self, family: Family, start: int, stop: int, device: torch.device) -> dict[str, Any]:
        """Frames ``start`` to ``stop`` as the encoder's inputs for a video of their own."""
        pixels, frames = RAW_PIXELS[family.modality], self.frames[start:stop].to(device)
        cut = {name: value[start:stop] for name, value in self.by_picture.items()}
        if family.frames_as == "patches":
            grid = self.beside["video_grid_thw"].clone()
            grid[:, 0] = len(frames)
            return {**self.beside, pixels: frames.flatten(0, 1), "video_grid_thw": grid}
        if family.frames_as == "images":
            if family.pads_samples:
                frames, cut = frames[None], {name: value[None] for name, value in cut.items()}
            return {pixels: frames, **cut, FRAMES: [stop - start]}
        return {pixels: frames[None]}


def split_videos(model: PreTrainedModel, family: Family, inputs: Mapping[str, Any]) -> list[Part]:
    """The videos of a prompt, and the still images that a family reads together with their frames, in order."""
    pixels: Tensor = inputs[RAW_PIXELS[family.modality]]
    if family.frames_as == "images":
        return _split_images(model, family, pixels, inputs)
    layouts = family.layouts(model, inputs, None)
    if family.frames_as == "pictures":
        return [Part(frames, layout, {}, {}) for frames, layout in zip(pixels, layouts, strict=True)]
    parts, done = [], 0
    names = [name for name in ("video_grid_thw", *family.per_video) if inputs.get(name) is not None]
    for index, (layout, (t, h, w)) in enumerate(zip(layouts, inputs["video_grid_thw"].tolist(), strict=True)):
        frames = pixels[done : done + t * h * w].unflatten(0, (t, h * w))
        parts.append(Part(frames, layout, {name: inputs[name][index : index + 1] for name in names}, {}))
        done += t * h * w
    return parts


def _split_images(model: PreTrainedModel, family: Family, pixels: Tensor, inputs: Mapping[str, Any]) -> list[Part]:
    beside = {name: inputs[name] for name in family.per_picture if inputs.get(name) is not None}
    if family.pads_samples:  # with black pictures, which the encoder leaves out
        pixels, beside = pixels.flatten(0, 1), {name: value.flatten(0, 1) for name, value in beside.items()}
        real = (pixels != 0).flatten(1).any(1)
        pixels, beside = pixels[real], {name: value[real] for name, value in beside.items()}
    size = next(layout.tokens_per_frame for layout in family.layouts(model, {**inputs, FRAMES: [1]}, None))
    parts, done = [], 0
    for layout in family.layouts(model, inputs, len(pixels) * size):
        count = layout.frames or layout.rows // size
        cut = {name: value[done : done + count] for name, value in beside.items()}
        parts.append(Part(pixels[done : done + count], layout, {}, cut))
        done += count
    return parts


def plan_videos(
    model: PreTrainedModel,
    family: Family,
    rule: Rule,
    budget: Budget,
    parts: list[Part],
    piece: int | None = None,
) -> list[Plan | None]:
    """Which patches of each video are encoded; of still images all. One host synchronisation."""
    assert family.tower is not None
    videos = [
        Pixels(
            part.frames,
            family.tower.grid(model, part.frames, part.beside),
            (part.layout.height, part.layout.width),
            family.tower.pooling,
        )
        for part in parts
        if part.layout.frames
    ]
    chosen = [rule.choose(video, budget, piece) for video in videos]
    host = torch.cat([mask.flatten() for mask in chosen]).cpu().split([mask.numel() for mask in chosen])
    plans = iter(
        Plan(video.grid, video.order.cpu(), mask.view(len(video), -1)) for video, mask in zip(videos, host, strict=True)
    )
    return [next(plans) if part.layout.frames else None for part in parts]


def _encode_one(
    model: PreTrainedModel, family: Family, part: Part, plan: Plan | None, step: int | None, device: torch.device
) -> Encoded:
    """One video, piece by piece."""
    frames = len(part.frames)
    step = min(step or frames, frames)

    def piece(start: int) -> Encoded:
        stop = min(start + step, frames)
        inputs = part.inputs(family, start, stop, device)
        passing: AbstractContextManager[None] = nullcontext()
        if plan is not None and family.tower is not None:
            passing = packed_pass(model, family.tower, plan.encoded[start:stop], plan.grid)
        with passing:
            output = family.encode(model, family.modality, inputs)
        rows = sum(rows.shape[:-1].numel() for rows in output.pooler_output)
        return Encoded.of(output, family.layouts(model, inputs, rows) if part.layout.frames else [Layout.still(rows)])

    whole = piece(0) if step == frames else join_pieces(map(piece, range(0, frames, step)), frames)
    return replace(whole, plans=[plan])
