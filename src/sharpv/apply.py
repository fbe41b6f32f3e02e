"""The door: prune a model, or one prompt for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from .budget import Budget
from .covers import UnexpandableFeatures
from .criteria import Criterion, get_criterion
from .handle import Handle
from .methods import InnerMethod, Method, get_method
from .models import find_family, unwrapped
from .prompt import Settings, prune
from .vision import Encoding

PAPER_M = 0.2


def apply(
    model: PreTrainedModel,
    method: str | Method = "sharpv",
    *,
    memory: float | Criterion | None = PAPER_M,
    retention: float | None = None,
    max_tokens: int | None = None,
    min_tokens_per_frame: int = 0,
    positions: Literal["original", "packed"] = "original",
    still: float | None = None,
    frames_at_once: int | None = None,
) -> Handle:
    """Prune the videos that this model reads, from now until the handle is removed.

    Args:
        model: a loaded transformers VideoLLM of a supported family (:func:`sharpv.list_models`), in PEFT's wrapper or
            not.
        method: a name (:func:`sharpv.list_methods`) or an instance such as ``SharpV(weight=1.0)``.
        memory: the second stage. A number is the paper's M: a layer whose visual tokens have a mean cosine below M to
            their own input forgets them after prefill. Paper: 0.2. It can cost answers of several tokens (see
            :class:`sharpv.Cosine`). None switches it off. The references that act inside the model themselves,
            ``fastv`` and ``vtw``, take its place.
        retention: the KEPT share of each video's tokens, in (0, 1], met exactly. None: the content decides.
        max_tokens: ceiling on the kept tokens of each video.
        min_tokens_per_frame: floor on the kept tokens of each frame.
        positions: "original": each survivor keeps its position in the full prompt, and the run equals a dense one with
            the dropped tokens masked. "packed": the shorter prompt is numbered from 0 (on multimodal RoPE all rows
            alike), as in the paper's pipeline.
        still: stage 0. A frame in which no patch differs by more than this from the last encoded frame (root mean
            square of its pixels, in the processor's units; 0: frames that repeat exactly) is not encoded and takes
            that frame's features. None: every frame is encoded.
        frames_at_once: so many frames go through the vision tower at a time, which bounds its memory on long videos.
            Both need a tower that encodes frame by frame (:class:`sharpv.vision.Encoding`).

    Returns:
        A :class:`Handle`, which is also a context manager.

    Raises:
        TypeError: not a generative transformers model, or an argument of the wrong type.
        ValueError: an unsupported model type, an unknown method, a value out of range, or a model that is already
            pruned.

    >>> with sharpv.apply(model) as pruning:
    ...     out = model.generate(**inputs, max_new_tokens=64)
    >>> print(pruning.report)
    """
    if isinstance(method := get_method(method), InnerMethod):
        memory = None
    encoding = Encoding(still, frames_at_once)
    settings = _settings(method, memory, Budget(retention, max_tokens, min_tokens_per_frame), positions, encoding)
    return Handle(unwrapped(model), settings)


def trim(
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    method: str | Method = "sharpv",
    *,
    retention: float | None = None,
    max_tokens: int | None = None,
    min_tokens_per_frame: int = 0,
    positions: Literal["original", "packed"] = "original",
    still: float | None = None,
    frames_at_once: int | None = None,
) -> dict[str, Any]:
    """Stage 1 alone, explicitly, nothing patched: a dict for ``model.generate(**trimmed)`` or ``model(**trimmed)``.

    What the model returns then begins with the shorter prompt, ``trimmed["input_ids"]``. The vision side runs in the
    caller's grad mode. A decoding loop by hand goes on with ``position_ids`` after the trimmed ones. Beams and several
    returned sequences on a batch need :func:`apply` on families that read features as one tensor (LLaVA-OneVision,
    Video-LLaVA): here they are refused. Inputs without a video come back unchanged.

    Args and errors are those of :func:`apply`.

    >>> trimmed = sharpv.trim(model, inputs, "sharpv", retention=0.25)
    >>> out = model.generate(**trimmed, max_new_tokens=64)
    """
    encoding = Encoding(still, frames_at_once)
    settings = _settings(method, None, Budget(retention, max_tokens, min_tokens_per_frame), positions, encoding)
    if isinstance(settings.method, InnerMethod):
        raise ValueError(f"{settings.method.name} acts inside the language model: use sharpv.apply")
    model = unwrapped(model)
    family = find_family(model)
    settings.encoding.require(family)
    if Handle.of(model) is not None:
        raise ValueError("this model is already pruned by sharpv: call remove() on its handle first")
    if not family.has_video(inputs):
        return family.stock_inputs(inputs)
    trimmed, prompt = prune(model, family, settings, inputs)
    if family.batched_features:
        output = trimmed["mm_encoder_outputs"][family.handed_as]
        joined = torch.cat(output.pooler_output)[None]
        output.pooler_output = UnexpandableFeatures(joined) if len(prompt.ids) > 1 else joined
    return trimmed


def _settings(
    method: str | Method,
    memory: float | Criterion | None,
    budget: Budget,
    positions: Literal["original", "packed"],
    encoding: Encoding,
) -> Settings:
    if positions not in ("original", "packed"):
        raise ValueError(f"positions must be 'original' or 'packed', got {positions!r}")
    chosen = get_method(method)
    chosen.require_budget(budget)
    return Settings(chosen, budget, get_criterion(memory), positions, encoding)
