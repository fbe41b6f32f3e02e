"""sharpv speeds up video language models by dropping redundant visual tokens. No retraining.

>>> import sharpv
>>> with sharpv.apply(model, retention=0.25) as pruning:
...     out = model.generate(**inputs, max_new_tokens=64)
>>> print(pruning.report)

An independent implementation of SharpV (https://arxiv.org/abs/2511.08003) for Hugging Face transformers. Names are
imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .calibration import calibrate
    from .config import PAPER, Config
    from .door import apply, trim
    from .kvcache import Contribution, CosineThreshold, Criterion, KeepLayers
    from .methods import Method, SharpV, SharpVPlus, list_methods
    from .methods.budget import Budget
    from .models import list_models
    from .pruning import Pruning
    from .report import Report
    from .sessions import Session
    from .video import read_video

_HOMES = {
    "apply": "door", "trim": "door",
    "calibrate": "calibration",
    "PAPER": "config", "Config": "config",
    "Contribution": "kvcache", "CosineThreshold": "kvcache", "Criterion": "kvcache", "KeepLayers": "kvcache",
    "Method": "methods", "SharpV": "methods", "SharpVPlus": "methods", "list_methods": "methods",
    "Budget": "methods.budget",
    "list_models": "models",
    "Pruning": "pruning",
    "Report": "report",
    "Session": "sessions",
    "read_video": "video",
}  # fmt: skip

__all__ = [
    "PAPER",
    "Budget",
    "Config",
    "Contribution",
    "CosineThreshold",
    "Criterion",
    "KeepLayers",
    "Method",
    "Pruning",
    "Report",
    "Session",
    "SharpV",
    "SharpVPlus",
    "apply",
    "calibrate",
    "list_methods",
    "list_models",
    "read_video",
    "trim",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sharpv' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
