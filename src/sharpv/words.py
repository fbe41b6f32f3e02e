"""How figures are said: shares, bytes and seconds, the same in every place."""

from __future__ import annotations


def both(share: float) -> str:
    """A kept share with its complement, so that neither is taken for the other.

    >>> both(0.25)
    'kept 25.0 %, pruned 75.0 %'
    """
    return f"kept {percent(share)}, pruned {percent(1 - share)}"


def percent(share: float) -> str:
    """A share in [0, 1]."""
    return f"{100 * share:.1f} %"


def size(count: float) -> str:
    """Bytes, in thousands.

    >>> size(41_300_000)
    '41.3 MB'
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
