"""The vision side: a video's frames through the model's own tower, in pieces, and once where they repeat.

Both need a tower that looks at one frame at a time (for Qwen's, one temporal patch of two pictures): then a frame's
features depend on its own pixels only, and neither pieces nor the company of other frames change them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from .checks import number, set_numbers, whole
from .encoded import join_pieces, separate
from .models import Family, Layout
from .models.base import RAW_PIXELS

PATCH = 14
"""Side of the patches in which pictures are compared, in pixels: a usual tower's."""


@dataclass(frozen=True)
class Encoding:
    """How the frames of a video are encoded; the default is the model's own way, all of them at once.

    Args:
        still: stage 0, ours. A frame in which no patch differs from the last encoded frame by more than this is not
            encoded and takes that frame's features. The difference is the root mean square over a patch's pixels, in
            the units of the processor (black to white is about 2 to 4). 0: frames that repeat exactly. None: off.
        frames_at_once: so many frames go through the tower at a time, which bounds the memory of its activations. The
            pixels may then lie on the host.

    Raises:
        TypeError: not a number.
        ValueError: a value out of range.
    """

    still: float | None = None
    frames_at_once: int | None = None

    def __post_init__(self) -> None:
        if self.still is not None:
            set_numbers(self, still=number("still", self.still, least=0))
        if self.frames_at_once is not None:
            set_numbers(self, frames_at_once=whole("frames_at_once", self.frames_at_once, least=1))

    @property
    def stock(self) -> bool:
        """Whether nothing is asked for."""
        return self.still is None and self.frames_at_once is None

    def require(self, family: Family) -> None:
        """Refuse a family whose tower may look at several frames at once."""
        if not self.stock and family.frames_as is None:
            raise ValueError(f"{family.name} does not encode frame by frame: pass neither still nor frames_at_once")


def encode_videos(
    model: PreTrainedModel, family: Family, encoding: Encoding, inputs: Mapping[str, Any]
) -> tuple[Any, list[list[int]]]:
    """The video encoder's output, as :meth:`Family.encode` gives it, and per video the frame that each one came from.

    One host synchronisation with ``still``, none without.
    """
    videos = split_videos(family, inputs)
    sources = [list(range(len(frames))) for frames in videos]
    if encoding.still is not None:
        found = torch.cat([repeated(frames, encoding.still) for frames in videos]).tolist()
        ends = accumulate((len(frames) for frames in videos), initial=0)
        sources = [found[start:end] for start, end in pairwise(ends)]
    outputs = [
        _encode_one(model, family, encoding, inputs, index, frames, source)
        for index, (frames, source) in enumerate(zip(videos, sources, strict=True))
    ]
    output = outputs[0]
    output.pooler_output = [rows for each in outputs for rows in each.pooler_output]
    if getattr(output, "deepstack_features", None) is not None:
        layers = zip(*(each.deepstack_features for each in outputs), strict=True)
        output.deepstack_features = [[rows for video in layer for rows in video] for layer in layers]
    return output, sources


def split_videos(family: Family, inputs: Mapping[str, Any]) -> list[Tensor]:
    """The pixels of each video with its frames first: ``(T, C, H, W)``, or ``(T, patches, values)``."""
    pixels: Tensor = inputs[RAW_PIXELS[family.modality]]
    if family.frames_as == "pictures":
        return list(pixels)
    grids = inputs["video_grid_thw"].tolist()
    videos = pixels.split([t * h * w for t, h, w in grids])
    return [rows.unflatten(0, (t, h * w)) for rows, (t, h, w) in zip(videos, grids, strict=True)]


def repeated(frames: Tensor, still: float) -> Tensor:
    """For each frame the last one before it, or itself, that has to be encoded, ``(T,)`` int64, unread.

    Args:
        frames: ``(T, C, H, W)``, or ``(T, patches, values)`` where the processor has cut them already.
        still: as in :class:`Encoding`.
    """
    last = torch.zeros(1, dtype=torch.long, device=frames.device)
    sources = [last]
    # which frame is compared depends on the comparisons before
    for index in range(1, len(frames)):
        squares = (frames[index].float() - frames.index_select(0, last)[0].float()).square()
        if squares.ndim == 3:
            patches = functional.avg_pool2d(squares.mean(0)[None], PATCH, ceil_mode=True)
        else:
            patches = squares.mean(-1)
        last = torch.where(patches.amax().sqrt() > still, index, last)
        sources.append(last)
    return torch.cat(sources)


def _encode_one(
    model: PreTrainedModel,
    family: Family,
    encoding: Encoding,
    inputs: Mapping[str, Any],
    index: int,
    frames: Tensor,
    source: list[int],
) -> Any:
    """One video: the frames that others do not repeat go through the tower, piece by piece."""
    own = sorted(set(source))
    step = encoding.frames_at_once or len(own)

    def pieces() -> Iterator[tuple[Any, Layout]]:
        for start in range(0, len(own), step):
            chosen = own[start : start + step]
            # a slice costs no copy
            whole = chosen[-1] - chosen[0] + 1 == len(chosen)
            picked = frames[chosen[0] : chosen[-1] + 1] if whole else frames[chosen]
            piece = _as_inputs(family, inputs, index, picked.to(inputs["input_ids"].device))
            output = family.encode(model, family.modality, piece)
            layouts = family.layouts(model, piece, sum(rows.shape[:-1].numel() for rows in output.pooler_output))
            separate(output, layouts)
            yield output, layouts[0]

    number = {frame: place for place, frame in enumerate(own)}
    return join_pieces(pieces(), [number[frame] for frame in source])


def _as_inputs(family: Family, inputs: Mapping[str, Any], index: int, frames: Tensor) -> dict[str, Any]:
    """Some frames of the index-th video as the inputs of a video of their own."""
    pixels = RAW_PIXELS[family.modality]
    if family.frames_as == "pictures":
        return {pixels: frames[None]}
    grid = inputs["video_grid_thw"][index : index + 1].clone()
    grid[:, 0] = len(frames)
    own = {name: inputs[name][index : index + 1] for name in family.per_video if inputs.get(name) is not None}
    return {pixels: frames.flatten(0, 1), "video_grid_thw": grid, **own}
