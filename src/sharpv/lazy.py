"""A module that is imported when it is first used: listing and checking what can be asked for needs no torch."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class _Lazy(ModuleType):
    def __getattr__(self, name: str) -> Any:
        found = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, found)
        return found


def lazy(name: str) -> Any:
    """Stands in for ``import name`` (Python 3.15 has a statement for it); nothing is put in ``sys.modules``.

    >>> torch = lazy("torch")
    """
    return _Lazy(name)
