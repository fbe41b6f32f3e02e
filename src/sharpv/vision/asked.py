"""How frames are to be encoded: what can be asked for. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..checks import number, set_numbers, whole


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
