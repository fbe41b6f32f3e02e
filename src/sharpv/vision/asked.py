"""How frames are to be encoded: what can be asked for. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..checks import set_numbers, whole
from .rules import ENCODINGS, All, Rule


@dataclass(frozen=True)
class Encoding:
    """How the frames of a video are encoded; the default is the model's own way, all of them at once.

    Args:
        encode: which patches are encoded: "all", "changed" or "kept", also with parameters
            (``"changed:threshold=0.05"``), or an instance such as ``Changed(0.05)``. See :mod:`.rules`.
        frames_at_once: so many frames go through the tower at a time, which bounds the memory of its activations. The
            pixels may then lie on the host. The first frame of each piece is encoded whole.

    Raises:
        TypeError: not a name or an instance; not a number.
        ValueError: an unknown name, or a value out of range.
    """

    encode: str | Rule = "all"
    frames_at_once: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "encode", ENCODINGS.make(self.encode, "encode"))
        if self.frames_at_once is not None:
            set_numbers(self, frames_at_once=whole("frames_at_once", self.frames_at_once, least=1))

    @property
    def rule(self) -> Rule | None:
        """What chooses the patches; None: all are encoded."""
        return None if isinstance(self.encode, (All, str)) else self.encode

    @property
    def stock(self) -> bool:
        """Whether nothing is asked for."""
        return self.rule is None and self.frames_at_once is None
