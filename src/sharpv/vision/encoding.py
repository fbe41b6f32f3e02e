"""The vision side: a video's frames through the model's own tower, in pieces, and once where they repeat.

Both need a tower that looks at one frame at a time (for Qwen's, one temporal patch of two pictures): then a frame's
features depend on its own pixels only, and neither pieces nor the company of other frames change them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from ..models import Family
from ..models.base import RAW_PIXELS
from .asked import Encoding
from .encoded import Encoded, join_pieces, together

PATCH = 14
"""Side of the patches in which pictures are compared, in pixels: a usual tower's."""


def require(family: Family, encoding: Encoding) -> None:
    """Refuse, with a ValueError, a family whose tower may look at several frames at once."""
    if not encoding.stock and family.frames_as is None:
        raise ValueError(f"{family.name} does not encode frame by frame: pass neither still nor frames_at_once")


def encode(
    model: PreTrainedModel, family: Family, encoding: Encoding, inputs: Mapping[str, Any]
) -> tuple[Encoded, dict[str, Any]]:
    """The videos' features, and the output of the other modality's encoder, by its name.

    Raises:
        ValueError: what the encoders refuse.
    """
    if encoding.stock:
        output = family.encode(model, family.modality, inputs)
        rows = sum(part.shape[:-1].numel() for part in output.pooler_output)
        videos = Encoded.of(output, family.layouts(model, inputs, rows))
    else:
        videos = encode_videos(model, family, encoding, inputs)
        # an input about all tokens (VideoLLaMA 3's mask) is not cut into pieces
        rows = sum(len(part) for part in videos.rows)
        videos = replace(videos, layouts=family.layouts(model, inputs, rows))
    beside = [name for name in family.encoders if name != family.modality and inputs.get(RAW_PIXELS[name]) is not None]
    return videos, {name: family.encode(model, name, inputs) for name in beside}


def encode_videos(model: PreTrainedModel, family: Family, encoding: Encoding, inputs: Mapping[str, Any]) -> Encoded:
    """The videos' features, with frames left out or in pieces. One host synchronisation with ``still``."""
    videos = split_videos(family, inputs)
    sources = [list(range(len(frames))) for frames in videos]
    if encoding.still is not None:
        found = torch.cat([repeated(frames, encoding.still) for frames in videos]).tolist()
        ends = accumulate((len(frames) for frames in videos), initial=0)
        sources = [found[start:end] for start, end in pairwise(ends)]
    return together(
        [
            _encode_one(model, family, encoding, inputs, index, frames, source)
            for index, (frames, source) in enumerate(zip(videos, sources, strict=True))
        ]
    )


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
) -> Encoded:
    """One video: the frames that others do not repeat go through the tower, piece by piece."""
    own = sorted(set(source))
    step = encoding.frames_at_once or len(own)

    def pieces() -> Iterator[Encoded]:
        for start in range(0, len(own), step):
            chosen = own[start : start + step]
            # a slice costs no copy
            whole = chosen[-1] - chosen[0] + 1 == len(chosen)
            picked = frames[chosen[0] : chosen[-1] + 1] if whole else frames[chosen]
            piece = _as_inputs(family, inputs, index, picked.to(inputs["input_ids"].device))
            output = family.encode(model, family.modality, piece)
            rows = sum(part.shape[:-1].numel() for part in output.pooler_output)
            yield Encoded.of(output, family.layouts(model, piece, rows))

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
