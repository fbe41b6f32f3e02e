"""Model families: one file each, mostly data, and how a model finds its own.

A family never sees a method. Import :func:`find_family`, :class:`Family` and :class:`Layout` from this room; a
family of your own goes to :func:`register`.
"""

from __future__ import annotations

import difflib
import inspect
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import transformers
from packaging.version import Version
from transformers import PreTrainedModel

from .base import Family, is_offloaded
from .intern_vl import INTERN_VL
from .layout import Layout, Seen
from .llava_onevision import LLAVA_ONEVISION
from .llava_video import LLAVA_NEXT_VIDEO, VIDEO_LLAVA
from .perception_lm import PERCEPTION_LM
from .pllava import PLLAVA
from .qwen_vl import GLM_V, QWEN2_5_VL, QWEN2_VL, QWEN3_5, QWEN3_VL
from .smol_vlm import SMOL_VLM
from .video_llama import VIDEO_LLAMA_3

FAMILIES: list[Family] = [
    LLAVA_ONEVISION,
    LLAVA_NEXT_VIDEO,
    VIDEO_LLAVA,
    QWEN2_VL,
    QWEN2_5_VL,
    QWEN3_VL,
    QWEN3_5,
    GLM_V,
    VIDEO_LLAMA_3,
    INTERN_VL,
    SMOL_VLM,
    PERCEPTION_LM,
    PLLAVA,
]


def register(family: Family) -> Family:
    """Add a family of one's own; one for the same model types takes the place of the built-in one.

    A package's entry point of group ``sharpv.families`` names the module that does so.

    >>> register(Family(name="Mine", model_types=("my_vlm",), examples=(), layouts=my_layouts))
    """
    FAMILIES[:] = [known for known in FAMILIES if not set(known.model_types) & set(family.model_types)]
    FAMILIES.append(family)
    return family


@cache
def _find_others() -> None:
    for entry in entry_points(group="sharpv.families"):
        entry.load()


def unwrapped(model: Any) -> Any:
    """The transformers model inside PEFT's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def find_family(model: PreTrainedModel) -> Family:
    """The family of a loaded model.

    Raises:
        TypeError: not a generative transformers model.
        ValueError: a model type without a family (the known ones are listed), a transformers too old for it, or
            offloaded weights where transformers itself cannot run the family with them.
    """
    if not isinstance(model, PreTrainedModel) or not model.can_generate():
        raise TypeError(f"expected a transformers model that can generate, got {type(model).__name__}")
    _find_others()
    model_type = model.config.model_type
    for family in FAMILIES:
        if model_type in family.model_types:
            break
    else:
        raise ValueError(unsupported(model_type))
    if "mm_encoder_outputs" not in inspect.signature(type(model).forward).parameters:
        raise ValueError(f"{type(model).__name__} takes no mm_encoder_outputs: sharpv needs transformers >= 5.18")
    if Version(transformers.__version__).release < Version(family.since).release:
        raise ValueError(f"{family.name} needs transformers >= {family.since}, this is {transformers.__version__}")
    if not family.offload and any(is_offloaded(module) for module in model.modules()):
        raise ValueError(f"transformers cannot run {family.name} with offloaded weights: load it without device_map")
    return family


def unsupported(model_type: str) -> str:
    """What is said of a model type without a family."""
    known = list_models()
    near = difflib.get_close_matches(model_type, known, n=1, cutoff=0.6)
    hint = f", did you mean {near[0]!r}?" if near else ";"
    return f"model type {model_type!r} is not supported{hint} supported: {', '.join(known)}"


def list_models() -> list[str]:
    """Values of ``config.model_type`` that :func:`sharpv.apply` accepts, sorted."""
    _find_others()
    return sorted(model_type for family in FAMILIES for model_type in family.model_types)


__all__ = ["FAMILIES", "Family", "Layout", "Seen", "find_family", "list_models", "unwrapped"]
