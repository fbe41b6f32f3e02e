"""sharpv: visual token pruning for video language models, without retraining.

>>> import sharpv
>>> with sharpv.apply(model) as pruning:
...     out = model.generate(**inputs, max_new_tokens=64)
>>> print(pruning.report)

An implementation of SharpV (https://arxiv.org/abs/2511.08003) for Hugging Face transformers.
"""

from .apply import apply, trim
from .budget import Budget
from .calibration import Calibration, calibrate
from .criteria import Contribution, Cosine, Layers
from .handle import Handle
from .methods import Random, SharpV, Uniform, list_methods
from .models import list_models
from .report import Report

__version__ = "0.1.0"
__all__ = [
    "Budget",
    "Calibration",
    "Contribution",
    "Cosine",
    "Handle",
    "Layers",
    "Random",
    "Report",
    "SharpV",
    "Uniform",
    "apply",
    "calibrate",
    "list_methods",
    "list_models",
    "trim",
]
