"""The paired bootstrap: how far a difference may be chance, when the same videos were asked both times."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean and its 95 % interval. Where nothing differs there is none to give, and it says so.

    >>> str(Interval(-1.94, -2.3, -1.6))
    '-1.9 [-2.3, -1.6]'
    >>> str(Interval(0.0, 0.0, 0.0))
    'none differs'
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.mean == self.low == self.high == 0:
            return "none differs"
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def unseen(answers: int) -> float:
    """Points that a loss may have where none of so many answers differs: the rule of three, at 95 %.

    Source: https://en.wikipedia.org/wiki/Rule_of_three_(statistics)

    >>> unseen(149)
    2.013422818791946
    """
    return 300 / answers


def resamples(videos: int) -> NDArray[np.float64]:
    """How often each video is drawn, ``(1 + RESAMPLES, videos)``: once each, then at random with replacement.

    The draws are the same at each call, so whatever is computed with them is paired.
    """
    draws = np.random.default_rng(0).multinomial(videos, np.full(videos, 1 / videos), size=RESAMPLES)
    return np.vstack([np.ones(videos), draws])


def interval(values: NDArray[np.float64]) -> Interval:
    """Of ``(1 + RESAMPLES,)`` values, the first of which is that of all videos; NaNs are left out."""
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return Interval(float(values[0]), float(low), float(high))
