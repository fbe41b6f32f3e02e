"""The first stage: which visual tokens are kept before the language model. One file per method.

A method sees features only, never a model: :mod:`.importance` (SharpV's maths) and :mod:`.budget` (how many) import
nothing but torch, and torch only when they run. A method registers itself with ``@METHODS.register``, from here or
from another package; import classes and :data:`METHODS` from this room.
"""

from __future__ import annotations

from .base import METHODS, Method, Scores, Selection
from .cdpruner import CDPruner
from .divprune import DivPrune
from .dycoke import DyCoke
from .evs import EVS
from .fastvid import FastVID
from .pool import Pool
from .random import Random
from .sharpv import SharpV
from .sharpv_plus import SharpVPlus
from .subsample import Subsample
from .uniform import Uniform
from .vidcom2 import VidCom2


def list_methods() -> list[str]:
    """Names that :func:`sharpv.apply` accepts, sorted."""
    return sorted(METHODS)


__all__ = [
    "EVS",
    "METHODS",
    "CDPruner",
    "DivPrune",
    "DyCoke",
    "FastVID",
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
    "list_methods",
]
