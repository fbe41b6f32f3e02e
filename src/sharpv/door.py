"""The door: prune a model, or one prompt for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from .config import Config
from .models import find_family, unwrapped
from .prompt.prune import prune
from .prompt.returned import UnexpandableFeatures
from .pruning import Pruning
from .vision import encoding

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .methods import Method


def apply(model: PreTrainedModel, config: Config | Method | str = "sharpv", **options: Any) -> Pruning:
    """Prune the videos that this model reads, from now until the pruning is removed.

    Args:
        model: a loaded transformers VideoLLM of a supported family (:func:`sharpv.list_models`), in PEFT's wrapper or
            not.
        config: a :class:`Config`, or a method for one: its name (:func:`sharpv.list_methods`) or an instance.
        options: fields of :class:`Config` (``retention``, ``max_tokens``, ``memory``, ...), which replace the config's.

    Returns:
        A :class:`Pruning`, which is also a context manager.

    Raises:
        TypeError: not a generative transformers model, or an argument of the wrong type.
        ValueError: an unsupported model type, an unknown name, a value out of range, or a model that is already
            pruned.

    >>> with sharpv.apply(model, retention=0.25) as pruning:
    ...     out = model.generate(**inputs, max_new_tokens=64)
    >>> print(pruning.report)
    sharpv: kept 1,568 of 6,272 visual tokens (kept 25.0 %, pruned 75.0 %); ...
    """
    return Pruning(unwrapped(model), Config.of(config, **options))


def trim(
    model: PreTrainedModel, inputs: Mapping[str, Any], config: Config | Method | str = "sharpv", **options: Any
) -> dict[str, Any]:
    """Prune one prompt and leave the model alone: a dict for ``model.generate(**trimmed)`` or ``model(**trimmed)``.

    What the model returns then begins with the shorter prompt, ``trimmed["input_ids"]``. The vision side runs in the
    caller's grad mode. A decoding loop by hand goes on with ``position_ids`` after the trimmed ones. Beams and several
    returned sequences on a batch need :func:`apply` on families that read features as one tensor (LLaVA-OneVision,
    Video-LLaVA): here they are refused. Inputs without a video come back unchanged.

        Args:
        model: as for :func:`apply`.
        inputs: what the processor returned.
        config: as for :func:`apply`; a second stage is refused.
        options: fields of :class:`Config`, which replace the config's.

    Raises:
        TypeError: inputs that are not a mapping, or as :func:`apply`.
        ValueError: a second stage, or as :func:`apply`.

    >>> trimmed = sharpv.trim(model, inputs, retention=0.25)
    >>> out = model.generate(**trimmed, max_new_tokens=64)
    """
    if not isinstance(inputs, Mapping):
        raise TypeError(f"trim takes the processor's inputs, a mapping, got {type(inputs).__name__}")
    asked = Config.of(config, **options)
    if asked.second is not None:
        raise ValueError(f"trim is the first stage alone, got memory={asked.second}: use sharpv.apply, or memory=None")
    model = unwrapped(model)
    family = find_family(model)
    encoding.require(family, asked.encoding)
    if Pruning.of(model) is not None:
        raise ValueError("this model is already pruned by sharpv: call remove() on its pruning first")
    if not family.has_video(inputs):
        return family.stock_inputs(inputs)
    trimmed, prompt = prune(model, family, asked, inputs)
    if family.batched_features:
        output = trimmed["mm_encoder_outputs"][family.handed_as]
        joined = torch.cat(output.pooler_output)[None]
        output.pooler_output = UnexpandableFeatures(joined) if len(prompt.ids) > 1 else joined
    return trimmed
