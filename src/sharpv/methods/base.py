"""What a pruning method is: a frozen dataclass that turns one video's features into a keep mask.

Two tiers. A simple method implements :meth:`Method.score` and leaves counting to the budget. A method that needs more
overrides :meth:`Method.choose`. A method sees features only, never a model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from ..lazy import lazy
from ..registry import Registry
from .budget import Budget, Present, keep_top

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")


@dataclass(frozen=True)
class Scores:
    """What a method thinks of a video.

    Attributes:
        tokens: ``(T, N)`` float32, finite, higher is more worth keeping; compared within a frame.
        demand: ``(T,)`` float32 in [0, 1], the share of its tokens that each frame asks for. None: the frames ask for
            nothing of their own, all tokens of the video compete.
    """

    tokens: Tensor
    demand: Tensor | None

    def of(self, present: Present) -> Tensor:
        """The tokens' scores, ``(T, N)``, -inf where no token is."""
        return self.tokens.masked_fill(~present.mask, -torch.inf)


@dataclass(frozen=True)
class Selection:
    """What is kept of a video.

    Attributes:
        keep: ``(T, N)`` bool.
        scores: the :class:`Scores` that led to it.
        features: ``(T, N, D)`` what the survivors carry where a method merges others into them; rows that are not kept
            mean nothing. None: the survivors stay as they are.
        sound: ``()`` bool, whether features and scores are finite, unread; filled in by :meth:`Method.pick`.
    """

    keep: Tensor
    scores: Scores
    features: Tensor | None = None
    sound: Tensor | None = None

    @classmethod
    def nothing(cls, patches: Tensor) -> Selection:
        """Of still images among the videos, which have no patches ``(0, ...)``."""
        keep = torch.ones(0, 0, dtype=torch.bool, device=patches.device)
        return cls(keep, Scores(keep.float(), None), sound=keep.all())

    def unmerged(self) -> Selection:
        """The survivors as they are."""
        return replace(self, features=None)


@dataclass(frozen=True)
class Method(ABC):
    """Base of all methods; fields of a subclass are its hyper-parameters, its repr is the experiment's log line."""

    name: ClassVar[str]
    summary: ClassVar[str]
    adaptive: ClassVar[bool]
    """Whether the method can decide by itself how much to keep; otherwise a ``retention`` must be given."""
    cost: ClassVar[str] = "T N D"
    """How the time grows with T frames, N tokens a frame and D channels."""
    paper: ClassVar[str] = ""
    """Its arXiv number."""
    needs_question: ClassVar[bool] = False
    """Whether it uses the question: :meth:`for_question` is then called for each video."""
    reads_all: ClassVar[bool] = False
    """Whether a NaN or infinity anywhere in the features shows in the scores, which saves looking for it."""

    def for_question(self, question: Tensor) -> Method:
        """The method for one question, ``(D,)``: the mean embedding of the text after the video."""
        return self

    def merges(self, positions: str) -> bool:
        """Whether survivors carry :attr:`Selection.features` on a model with these ``positions``, "1d" or "mrope"."""
        return False

    @abstractmethod
    def score(self, features: Tensor) -> Scores:
        """Score ``(T, N, D)`` float32 or half features; must not synchronise with the host."""

    def choose(self, features: Tensor, budget: Budget, present: Present) -> Selection:
        """Selection without checks: the best tokens of each frame or of the video, in their original order."""
        scores = self.score(features)
        tokens = scores.of(present)
        if scores.demand is None:
            return Selection(budget.best(tokens, present), scores)
        counts = budget.counts(scores.demand, present)
        return Selection(keep_top(tokens, counts), scores)

    def pick(self, features: Tensor, budget: Budget, present: Present) -> Selection:
        """:meth:`choose` as :meth:`select` and the pipeline call it: in float32, whatever autocast surrounds it."""
        with _as_written(features.device.type):
            selection = self.choose(features, budget, present)
            return replace(selection, sound=self.is_sound(features, selection.scores))

    def select(self, features: Tensor, budget: Budget | None = None, present: Tensor | None = None) -> Selection:
        """Choose the tokens of one video that are worth keeping.

        Args:
            features: ``(T, N, D)`` float tensor, the visual tokens as the language model would read them.
            budget: how many to keep; the default lets the content decide.
            present: ``(T, N)`` bool, the tokens that the prompt holds, for models that leave some out themselves; the
                others are scored with their frames and never kept. None: all.

        Returns:
            A :class:`Selection`; its ``keep`` is ``(T, N)`` bool on the features' device, with at least one True.

        Raises:
            ValueError: not three dimensions, an empty video, NaN or infinite features (frame and token are named), or
                no ``retention`` for a method that is not adaptive.
            TypeError: features that are not floating point.

        >>> SharpV().select(torch.randn(8, 49, 128)).keep.shape
        torch.Size([8, 49])
        """
        budget = budget or Budget()
        self.check(features, budget)
        frames, size, _ = features.shape
        there = Present.everywhere(frames, size, features.device)
        if present is not None:
            if present.shape != features.shape[:2] or present.dtype != torch.bool:
                raise ValueError(f"present must be bool {(frames, size)}, got {present.dtype} {tuple(present.shape)}")
            there = Present(present, int(present.sum()))
            if not there.count:
                raise ValueError("the video is empty: none of its tokens is present")
        selection = self.pick(features, budget, there)
        if not selection.sound:
            refuse_non_finite(features)
        return selection

    def is_sound(self, features: Tensor, scores: Scores) -> Tensor:
        """Whether features and scores are finite, as a bool tensor: reading it is the caller's host sync."""
        # NaN and infinity survive every sum
        total = scores.tokens.sum() if scores.demand is None else scores.tokens.sum() + scores.demand.sum()
        return torch.isfinite(total if self.reads_all else total + features.sum(dtype=torch.float32))

    def check(self, features: Tensor, budget: Budget) -> None:
        """Refuse, without looking at values, what no method can prune. Costs no host synchronisation."""
        if features.ndim != 3:
            raise ValueError(f"features must be (frames, tokens, channels), got shape {tuple(features.shape)}")
        if not features.is_floating_point():
            raise TypeError(f"features must be floating point, got {features.dtype}")
        if features.numel() == 0:
            raise ValueError(f"the video is empty: its features have shape {tuple(features.shape)}")
        self.require_budget(budget)

    def require_budget(self, budget: Budget) -> None:
        """Refuse a budget that leaves a method which cannot decide by itself without a share to keep."""
        if not self.adaptive and budget.retention is None:
            raise ValueError(f"method {self.name!r} keeps a fixed share: pass retention=, for instance retention=0.25")


@dataclass(frozen=True)
class MergingMethod(Method):
    """Base of the methods whose survivors carry others along, a mean at the place of one.

    Args:
        everywhere: merge on models with multimodal RoPE too. Off by default: there a token's position tells time,
            height and width, and what was merged into it comes from elsewhere; merging methods lose there what they
            win on models with 1-D positions (Qwen3-VL-8B at 25 % kept, figures of VidCom2's authors: HoliTom 93.5 % of
            the dense score, VidCom2 96.3 %). The survivors then keep their own features.
    """

    everywhere: bool = field(default=False, kw_only=True)

    def merges(self, positions: str) -> bool:
        return positions == "1d" or self.everywhere


def _as_written(device: str) -> AbstractContextManager[Any]:
    """Autocast off: a float32 product stays one. Devices without autocast need nothing."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


METHODS: Registry[Method] = Registry(Method, "method", "sharpv.methods")  # type: ignore[type-abstract]


def refuse_non_finite(features: Tensor, video: str = "the video") -> NoReturn:
    """Name the first NaN or infinite entry of ``(T, N, D)`` features in a ValueError."""
    bad = (~torch.isfinite(features)).nonzero()
    if len(bad) == 0:
        raise ValueError(f"the features of {video} are too large to be scored in float32")
    frame, token, channel = bad[0].tolist()
    value = features[frame, token, channel].item()
    raise ValueError(f"{video} has the feature {value} at frame {frame}, token {token}: features must be finite")
