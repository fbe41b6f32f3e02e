"""Which patches of a video are encoded: decided from pixels, before the tower runs.

Pixels choose what is encoded; what is kept is chosen after it, by the method, from features. A patch that is not
encoded takes the keys, values and output of the patch that stands at its place: the last one encoded there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..checks import number, set_numbers
from ..lazy import lazy
from ..methods.budget import Budget, Present, keep_top
from ..registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .pixels import Pixels
else:
    torch = lazy("torch")


@dataclass(frozen=True)
class Rule(ABC):
    """Base of all rules; fields of a subclass are its parameters."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def require_budget(self, budget: Budget) -> None:  # noqa: B027 - most rules need none
        """Refuse, with a ValueError, a budget that does not tell the rule what it needs."""

    @abstractmethod
    def choose(self, pixels: Pixels, budget: Budget, piece: int | None = None) -> Tensor:
        """Which patches are encoded, ``(T, N)`` bool on the pixels' device; must not synchronise with the host.

        Args:
            pixels: of one video, T frames of N patches.
            budget: how many tokens will be kept.
            piece: every so many frames one is encoded whole, since the tower starts anew; None: frame 0 alone.
        """


ENCODINGS: Registry[Rule] = Registry(Rule, "way to encode", "sharpv.encodings")  # type: ignore[type-abstract]


@ENCODINGS.register
@dataclass(frozen=True)
class All(Rule):
    """Every patch of every frame, as the model does by itself."""

    name: ClassVar[str] = "all"
    summary: ClassVar[str] = "every patch of every frame"

    def choose(self, pixels: Pixels, budget: Budget, piece: int | None = None) -> Tensor:
        return torch.ones(len(pixels), pixels.patches, dtype=torch.bool, device=pixels.frames.device)


@ENCODINGS.register
@dataclass(frozen=True)
class Changed(Rule):
    """Every patch that differs from the one last encoded at its place.

    It is compared with the pixels that were encoded there last, not with the frame before, so that a slow drift does
    not pass unseen. Ours; measured in docs/results/pocket_encode_8.md.

    Args:
        threshold: a patch changed when the root mean square of its difference is above this, in the processor's units
            (black to white is about 2 to 4). Camera and compression noise of real clips lies at 0.01 to 0.05; 0: what
            does not repeat exactly.
        limit: a frame of which more than this share changed is encoded whole, so that those after it stand in a
            context of their own. 0: whole frames only.

    Raises:
        TypeError: not a number.
        ValueError: a value out of range.
    """

    name: ClassVar[str] = "changed"
    summary: ClassVar[str] = "every patch that differs from the one last encoded at its place"

    threshold: float = 0.1
    limit: float = 0.5

    def __post_init__(self) -> None:
        set_numbers(
            self,
            threshold=number("threshold", self.threshold, least=0),
            limit=number("limit", self.limit, least=0, most=1),
        )

    def choose(self, pixels: Pixels, budget: Budget, piece: int | None = None) -> Tensor:
        return self._chain(pixels, piece)

    def _chain(
        self,
        pixels: Pixels,
        piece: int | None,
        wanted: Tensor | None = None,
        cuts: Tensor | None = None,
        spacing: int = 1,
    ) -> Tensor:
        """Frame after frame against what stands there.

        Args:
            wanted: ``(T - 1, N)`` bool, the patches of frames 1 to T - 1 that may be encoded; None: all.
            cuts: ``(T - 1,)`` bool, frames at which a new scene begins; where everything moves, a frame is encoded
                whole ``spacing`` frames after the last one. None: wherever most of a frame changed.
        """
        threshold = self.threshold**2
        standing = pixels.look(0)
        encoded = [torch.ones(pixels.patches, dtype=torch.bool, device=standing.device)]
        last = torch.zeros((), dtype=torch.long, device=standing.device)
        for frame in range(1, len(pixels)):
            look = pixels.look(frame)
            squares = pixels.differ(look, standing)
            changed = ~(squares <= threshold)
            whole = changed.float().mean() > self.limit
            if cuts is not None:
                whole &= cuts[frame - 1] | (frame - last >= spacing)
            if piece is not None and frame % piece == 0:
                whole = torch.ones_like(whole)
            # what is not finite is encoded, so that the features are refused as they always are
            now = whole | (changed if wanted is None else changed & (wanted[frame - 1] | ~squares.isfinite()))
            last = torch.where(whole, frame, last)
            standing = pixels.put(standing, look, now)
            encoded.append(now)
        return torch.stack(encoded)


@ENCODINGS.register
@dataclass(frozen=True)
class Kept(Changed):
    """Of the patches that changed, at most those that the kept tokens can need.

    As many visual tokens as will be kept are taken by how much their pixels changed, shared out over frames as SharpV
    shares out by T; what they read is encoded. With whole frames at cuts, and every 1 / share frames where everything
    moves, about twice the kept share of the tower's work is left at most. Only for runs that prune.

    Args:
        share: the share of tokens whose patches may be encoded; None: the share that the budget keeps.
    """

    name: ClassVar[str] = "kept"
    summary: ClassVar[str] = "of the patches that changed, at most those that the kept tokens can need"

    share: float | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.share is not None:
            set_numbers(self, share=number("share", self.share, above=0, most=1))

    def require_budget(self, budget: Budget) -> None:
        if self.share is None and budget.retention is None and budget.max_tokens is None:
            raise ValueError(
                "encode='kept' has to know how many tokens will be kept: pass retention=0.25 or max_tokens=, or give "
                "it a share of its own, encode='kept:share=0.25'"
            )

    def choose(self, pixels: Pixels, budget: Budget, piece: int | None = None) -> Tensor:
        frames, tokens = len(pixels), pixels.tokens
        share = self.share or (budget.total(frames * tokens) or budget.max_tokens or 0) / (frames * tokens)
        if share >= 1 or frames == 1:
            return super().choose(pixels, budget, piece)
        change = pixels.of_tokens(pixels.steps)
        present = Present.everywhere(frames - 1, tokens, change.device)
        counts = Budget(share).counts(change.mean(1).sqrt(), present)
        wanted = pixels.read_by(keep_top(change, counts))
        # a cut: most of this frame changed, and the next one stays like it. After the last frame nothing stays
        shares = (pixels.steps > self.threshold**2).float().mean(1)
        cuts = (shares > self.limit) & (torch.cat([shares[1:], shares.new_ones(1)]) <= self.limit)
        return self._chain(pixels, piece, wanted, cuts, round(1 / share))
