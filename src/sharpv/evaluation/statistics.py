"""The paired bootstrap: how far a difference may be chance, when the same videos were asked both times."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean and its 95 % interval.

    >>> str(Interval(-1.94, -2.3, -1.6))
    '-1.9 [-2.3, -1.6]'
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


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
