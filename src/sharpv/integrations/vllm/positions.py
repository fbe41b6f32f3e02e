"""Positions of a pruned prompt: every token that is left keeps the position that it had in the full prompt.

vLLM computes positions when a request arrives, while it is not known yet which tokens of a video survive. What is
known, the text and the pictures, is right from the start. A video's rows carry their own positions through vLLM's
encoder cache as extra channels behind the embedding, relative to the video's beginning and in digits of 256, which
bfloat16 holds exactly; :func:`place` puts them where the rows go. Nothing depends on what was computed before, so
chunked prefill, cached prefixes and resumed requests all give the same positions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BASE, DIGITS = 256, 3
CHANNELS = 2 + 4 * DIGITS
"""Behind each embedding: 1 if it is a video's row, the rows that come before the video's first visual token, and, in
digits, the row's index in its video and its t, h and w."""


@dataclass(frozen=True)
class Medium:
    """An image or a video in a prompt.

    Attributes:
        offset: where its placeholder begins.
        length: how many rows of the prompt it takes.
        relative: ``(3, rows)`` the positions of all its rows in the full prompt, from 0.
    """

    offset: int
    length: int
    relative: Tensor


def full_positions(length: int, media: Iterable[Medium]) -> tuple[Tensor, int]:
    """Positions of a prompt as far as they are known, ``(3, length)``, and vLLM's delta for the tokens after it.

    A pruned video's rows stand at its beginning until :func:`place` fills them; its last row, which every model's
    video has and keeps or which text follows, already has its own.
    """
    positions = torch.empty(3, length, dtype=torch.long)
    done, upcoming = 0, 0
    for medium in sorted(media, key=lambda each: each.offset):
        text = medium.offset - done
        positions[:, done : medium.offset] = torch.arange(upcoming, upcoming + text)
        start, done = upcoming + text, medium.offset + medium.length
        rows = positions[:, medium.offset : done]
        if medium.length == medium.relative.shape[1]:
            rows[:] = medium.relative + start
        else:
            rows[:] = start
            rows[:, -1] = medium.relative[:, -1] + start
        upcoming = start + int(medium.relative.max()) + 1
    positions[:, done:] = torch.arange(upcoming, upcoming + length - done)
    upcoming += length - done
    return positions, upcoming - length


def with_positions(rows: Tensor, relative: Tensor, lead: int = 0) -> Tensor:
    """Append to a video's ``(L, D)`` rows what :func:`place` needs: its :func:`channels`."""
    return torch.cat([rows, channels(relative, lead).to(rows)], dim=1)


def channels(relative: Tensor, lead: int = 0) -> Tensor:
    """``(L, CHANNELS)``, whole numbers below 256.

    Args:
        relative: ``(3, L)``, the positions of a video's rows in the full prompt, from the video's beginning.
        lead: how many of the rows, in the prompt as vLLM knows it, come before the first visual token.
    """
    index = torch.arange(relative.shape[1], device=relative.device)
    values = torch.stack([index, *relative.long()], dim=1)
    digits = torch.stack([values // BASE**power % BASE for power in range(DIGITS)], dim=1)
    first = torch.stack([torch.ones_like(index), torch.full_like(index, lead)], dim=1)
    return torch.cat([first, digits.flatten(1)], dim=1)


def without_positions(rows: Tensor) -> Tensor:
    """Append empty channels to an image's ``(L, D)`` rows: its positions are known already."""
    return torch.cat([rows, rows.new_zeros(len(rows), CHANNELS)], dim=1)


def place(
    embeddings: Sequence[Tensor], ids: Tensor | Sequence[int], video: int, positions: Tensor, computed: int
) -> tuple[list[Tensor], Tensor, int]:
    """Take the channels off the rows of a prefill chunk, and give its videos their positions.

    Args:
        embeddings: for each image and video in the chunk, in order, its ``(L, D + CHANNELS)`` rows in the chunk.
        ids: the token ids of the whole prompt.
        video: the id that stands for a video's visual tokens, of which each video has at least one.
        positions: ``(3, prompt)``.
        computed: where the chunk begins.

    Returns:
        The ``(L, D)`` rows, the positions and vLLM's delta.
    """
    positions = positions.clone()
    plain = [rows[:, :-CHANNELS] for rows in embeddings]
    behind = [rows[:, -CHANNELS:].to(positions.device, torch.long) for rows in embeddings]
    firsts = torch.stack([each[0] for each in behind]).tolist() if behind else []
    starts = _starts(firsts, [len(each) for each in behind], ids, video, computed)
    powers = torch.tensor([BASE**power for power in range(DIGITS)], device=positions.device)
    for start, first, each in zip(starts, firsts, behind, strict=True):
        if start is None:
            continue
        relative = (each[:, 2:].view(-1, DIGITS, 4)[..., 1:] * powers[:, None]).sum(dim=1).T
        base = positions[:, start - 1].max() + 1 if start else 0
        begin = start + _index(first)
        target = positions[:, begin : begin + len(each)]
        target[:] = (relative + base)[:, : target.shape[1]]
    return plain, positions, int(positions[:, -1].max()) + 1 - positions.shape[1]


def _index(row: Sequence[int]) -> int:
    """A row's index in its video."""
    return sum(digit * BASE**power for power, digit in enumerate(row[2::4]))


def _starts(
    firsts: list[list[int]], lengths: list[int], ids: Tensor | Sequence[int], video: int, computed: int
) -> list[int | None]:
    """Where each item of a chunk begins in the prompt; None for images.

    A video that the chunk enters in the middle began before it; another one is where the next visual token is.
    """
    there = (torch.as_tensor(ids) == video).nonzero().flatten().tolist()
    starts: list[int | None] = []
    reached = computed
    for first, length in zip(firsts, lengths, strict=True):
        (is_video, lead), index = first[:2], _index(first)
        if not is_video:
            starts.append(None)
            continue
        following = bisect_left(there, reached)
        if index:
            start = computed - index
        elif following < len(there):
            start = there[following] - lead
        else:  # a prompt with the model's own markers in its text: wrong positions for it, none for others
            start = reached
        starts.append(max(start, 0))
        reached = max(start, 0) + index + length
    return starts
