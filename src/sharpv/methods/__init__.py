"""Pruning methods, one file each, and their registry of classes."""

from __future__ import annotations

from typing import Any

from .base import Method, Scores, Selection
from .cdpruner import CDPruner
from .divprune import DivPrune
from .dycoke import DyCoke
from .evs import EVS
from .fastvid import FastVID
from .inner import VTW, FastV, InnerMethod
from .pool import Pool
from .random import Random
from .sharpv import SharpV
from .sharpv_plus import SharpVPlus
from .subsample import Subsample
from .uniform import Uniform
from .vidcom2 import VidCom2

_ALL: tuple[type[Method], ...] = (
    SharpV, SharpVPlus, EVS, VidCom2, FastVID, DyCoke, DivPrune, CDPruner, FastV, VTW, Uniform, Random, Subsample, Pool,
)  # fmt: skip
METHODS: dict[str, type[Method]] = {method.name: method for method in _ALL}


def get_method(method: str | Method, **parameters: Any) -> Method:
    """A method from its name and hyper-parameters; a ready method is returned as it is.

    Raises:
        ValueError: an unknown name (the known ones are listed).
        TypeError: neither a name nor a method.
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise TypeError(f"method must be a name or a Method, got {type(method).__name__}")
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known methods: {', '.join(sorted(METHODS))}")
    return METHODS[method](**parameters)


def list_methods() -> list[str]:
    """Names that :func:`sharpv.apply` accepts, sorted."""
    return sorted(METHODS)


__all__ = [
    "EVS",
    "METHODS",
    "VTW",
    "CDPruner",
    "DivPrune",
    "DyCoke",
    "FastV",
    "FastVID",
    "InnerMethod",
    "Method",
    "Pool",
    "Random",
    "Scores",
    "Selection",
    "SharpV",
    "SharpVPlus",
    "Subsample",
    "Uniform",
    "VidCom2",
    "get_method",
    "list_methods",
]
