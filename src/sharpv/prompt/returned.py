"""What callers see counts in full prompts: streamers and sequences; and features that beams would repeat wrongly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class FullPromptStreamer:
    """Hands a streamer the full prompt where ``generate`` puts the shorter one, first."""

    def __init__(self, streamer: Any, full: Tensor) -> None:
        self.streamer = streamer
        self.full: Tensor | None = full

    def put(self, value: Tensor) -> None:
        if self.full is not None:
            value, self.full = self.full.cpu(), None
        self.streamer.put(value)

    def end(self) -> None:
        self.streamer.end()


class UnexpandableFeatures:
    """Features of several samples as one tensor, which beams would repeat wrongly: refuses to be taken apart."""

    def __init__(self, features: Tensor) -> None:
        self.features = features

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.features.to(*args, **kwargs)

    def flatten(self, start: int, end: int) -> Tensor:
        return self.features.flatten(start, end)

    def __iter__(self) -> Any:
        raise ValueError(
            "a trimmed batch cannot be expanded for beams or num_return_sequences on this model: use sharpv.apply"
        )


def with_full_prompt(sequences: Tensor, full: Tensor, shorter: int) -> Tensor:
    """Replace the shorter prompt at the head of generated sequences by the full one, repeated for beams."""
    prompt = full.repeat_interleave(len(sequences) // len(full), dim=0).to(sequences.device)
    return torch.cat([prompt, sequences[:, shorter:]], dim=1)
