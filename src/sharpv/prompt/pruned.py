"""A pruned prompt as a value: what was kept of it and of its videos."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..models import Layout
from ..vision.encoded import Plan


@dataclass(frozen=True)
class PrunedVideo:
    """One video after pruning.

    Attributes:
        sample: its sample in the batch.
        layout: how its rows lay before.
        kept_per_frame: kept patches of each frame.
        keep: ``(T, N)`` bool, the keep mask.
        scores: ``(T, N)`` float32, what the method thought of each token.
        plan: which patches the tower encoded; None: all.
        repeats: how many survivors nearly equal the survivor at their place one frame before, unread.
    """

    sample: int
    layout: Layout
    kept_per_frame: list[int]
    keep: Tensor
    scores: Tensor
    plan: Plan | None
    repeats: Tensor


@dataclass(frozen=True)
class PrunedPrompt:
    """A full prompt and what is left of it; travels on the cache so that later turns can be pruned alike.

    Attributes:
        ids: ``(B, L)`` the full prompt.
        keep: ``(B, L)`` bool, the columns that survive (padding does not).
        inputs: the shorter prompt, as keyword arguments of ``forward`` and ``generate``, without the encoder outputs.
        visual: ``(B, N)`` bool, the surviving patches of videos in the shorter prompt.
        videos: one entry per video, in prompt order.
        end: ``(..., B, 1)`` the position after which text goes on, also where the prompt ends with a dropped token.
    """

    ids: Tensor
    keep: Tensor
    inputs: dict[str, Tensor]
    visual: Tensor
    videos: list[PrunedVideo]
    end: Tensor

    @property
    def removed(self) -> int:
        """Columns that the shorter prompt lacks."""
        return self.ids.shape[1] - self.visual.shape[1]

    def repeated(self, times: int) -> PrunedPrompt:
        """The one sample of this prompt, so many times; its videos are counted once."""
        return replace(
            self,
            ids=self.ids.repeat_interleave(times, dim=0),
            keep=self.keep.repeat_interleave(times, dim=0),
            visual=self.visual.repeat_interleave(times, dim=0),
            end=self.end.repeat_interleave(times, dim=-2),
            inputs={
                name: each.repeat_interleave(times, dim=-2 if name == "position_ids" else 0)
                for name, each in self.inputs.items()
            },
        )

    def positions_after(self, mask: Tensor, repeats: int = 1) -> Tensor:
        """Positions of the shorter prompt and of the text after it, ``(..., B, N + new)``.

        ``mask`` ``(B * repeats, new)`` says which of the new tokens are real: padding does not count.
        """
        positions, end = (each.repeat_interleave(repeats, dim=-2) for each in (self.inputs["position_ids"], self.end))
        return torch.cat([positions, end + mask.long().cumsum(-1)], dim=-1)
