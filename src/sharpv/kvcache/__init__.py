"""The second stage: which layers of the language model keep the video's keys and values, and a cache that forgets.

:mod:`.base` and the files beside it that are named after what they do (:mod:`.criteria`, :mod:`.fastv`, :mod:`.vtw`)
are rules and see tensors only; :mod:`.memory`, :mod:`.withdrawal` and :mod:`.cache` do the surgery, and
:func:`.attach.attach` puts a rule on a model. Import rules from :mod:`sharpv`, the rest from its module here.
"""

from __future__ import annotations

from .base import STAGES, Criterion, LayerView, SecondStage, Withdrawal
from .criteria import Contribution, CosineThreshold, KeepLayers
from .fastv import FastV
from .vtw import VTW

__all__ = [
    "STAGES",
    "VTW",
    "Contribution",
    "CosineThreshold",
    "Criterion",
    "FastV",
    "KeepLayers",
    "LayerView",
    "SecondStage",
    "Withdrawal",
]
