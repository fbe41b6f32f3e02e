"""The newest versions that this library was tested with; on newer ones it runs, and says so once."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

from packaging.version import Version

NEWEST_TESTED = {"transformers": (5, 24), "vllm": (0, 32)}
"""Minor versions. Some of what is used of both is not public there and may change in any of them."""

_said: set[str] = set()


def warn_if_untested(package: str, version: str, say: Callable[[str], object]) -> None:
    """Tell ``say`` of a version newer than the newest tested, once per process and package."""
    newest = NEWEST_TESTED[package]
    if package in _said or Version(version).release[:2] <= newest:
        return
    _said.add(package)
    tested = ".".join(map(str, newest))
    say(f"sharpv was tested with {package} up to {tested}, this is {version}: compare its answers before you trust it")


def warn_of_transformers(stacklevel: int) -> None:
    """The same for transformers, as a UserWarning: once, at the line ``stacklevel`` frames above the caller."""
    from transformers import __version__ as version

    say = functools.partial(warnings.warn, category=UserWarning, stacklevel=stacklevel + 3)
    warn_if_untested("transformers", version, say)
