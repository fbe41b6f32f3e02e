"""Numbers at the door: what is one, what is in range, and the one sentence that says so.

People hold numbers of many kinds: Python's, numpy's, fractions. Whatever counts as a number is taken and becomes
Python's own, so that reprs and JSON stay clean; truth values, texts and tensors are refused before anything runs.
"""

from __future__ import annotations

import math
import operator
from decimal import Decimal
from numbers import Real
from typing import Any


def whole(name: str, value: Any, least: int | None = None) -> int:
    """A whole number of any kind that Python takes as an index, as an ``int``.

    Args:
        name: of the argument, as the message begins.
        least: the smallest that is accepted; None: any.

    Raises:
        TypeError: not a number, or a truth value.
        ValueError: a number that is not whole, or one that is too small.

    >>> whole("max_tokens", numpy.int64(12), least=1)
    12
    """
    accepted = "a whole number" if least is None else f"a whole number of at least {least}"
    try:
        found = None if _is_truth(value) else operator.index(value)
    except (TypeError, ValueError):  # ValueError: an array of several
        found = None
    if found is None or (least is not None and found < least):
        kind = ValueError if is_real(value) else TypeError
        raise kind(f"{name} must be {accepted}, got {value!r}")
    return found


def number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> float:
    """A real number in range, as a ``float``; never NaN.

    Args:
        name: of the argument, as the message begins.
        least, above: the lower end, itself included or not; None: any finite number.
        most: the upper end, included, infinity too; None: any finite number. It goes with a lower end.

    Raises:
        TypeError: not a number: a truth value, a text, a tensor.
        ValueError: out of range.

    >>> number("retention", numpy.float64(0.25), above=0, most=1)
    0.25
    """
    bound = least if above is None else above
    if bound is None:
        accepted = "be a finite number"
    elif most is None:
        accepted = f"be a finite number {'of at least' if above is None else 'above'} {bound:g}"
    elif most == math.inf:
        accepted = f"be {'at least' if above is None else 'above'} {bound:g}"
    else:
        accepted = f"lie in {'[' if above is None else '('}{bound:g}, {most:g}]"
    if not is_real(value):
        raise TypeError(f"{name} must {accepted}, as a plain number, got {value!r}")
    found = float(value)
    low = bound is None or (found >= bound if above is None else found > bound)
    high = found <= most if most is not None else math.isfinite(found)
    if not (low and high):
        raise ValueError(f"{name} must {accepted}, got {value!r}")
    return found


def set_numbers(record: object, **values: float | None) -> None:
    """Write checked values back to the fields of a frozen dataclass, in its ``__post_init__``."""
    for name, value in values.items():
        object.__setattr__(record, name, value)


def is_real(value: Any) -> bool:
    """Whether it is a real number of any kind; truth values, texts and tensors are none."""
    return isinstance(value, (Real, Decimal)) and not _is_truth(value)


def _is_truth(value: Any) -> bool:
    """Whether it is True or False, of Python's kind or another library's."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")
