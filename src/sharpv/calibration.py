"""Which layers does a model answer from? Asked of the model itself, on a few prompts, once.

What a prompt's prefill shows of a layer does not say, on every model, whether the answer needs it
(docs/explanation/findings.md). But the layers that are needed hardly change from prompt to prompt, so they can be
measured: let the model answer, feed its answer back with a layer's visual keys and values gone, and see how far its
next-token distributions move. Not the paper's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache, PreTrainedModel

from .checks import number, whole
from .config import Config
from .door import apply
from .kvcache.cache import CACHE, ForgettingLayer
from .kvcache.criteria import KeepLayers
from .kvcache.memory import trace_of
from .methods import Method


@dataclass(frozen=True)
class Calibration:
    """What :func:`calibrate` found. All harms are mean KL divergences per token of an answer, in nats.

    Attributes:
        config: what was asked for, with the layers that were found as its second stage.
        harm: of each layer, when it alone forgets; NaN for a layer that cannot (a sliding window, a recurrent state).
        together: when all layers but :attr:`keep` forget.
        answers: the answers that it was measured on.
        tokens: their tokens after the first, which is read at prefill and cannot change.
    """

    config: Config
    harm: tuple[float, ...]
    together: float
    answers: int
    tokens: int

    @property
    def keep(self) -> tuple[int, ...]:
        """The layers that keep the video."""
        return cast(KeepLayers, self.config.second).keep


def calibrate(
    model: PreTrainedModel,
    prompts: Iterable[Mapping[str, Any]] | Mapping[str, Any],
    config: Config | Method | str = "sharpv",
    *,
    tolerance: float = 0.01,
    max_new_tokens: int = 48,
    **options: Any,
) -> Calibration:
    """Find the fewest layers that must keep the video for the model's own answers to stay what they are.

    Layers are let go in the order of their harm, as many as stay within the tolerance together. Of a handful of prompts
    like those to come, some should ask for a long answer: long answers read the video from more layers. Each is
    answered, prefilled once more, and its answer decoded as often as the model has layers and a few times more; the
    caches of all prompts are in memory together.

    Args:
        model: as for :func:`sharpv.apply`; it must not be pruned yet.
        prompts: the processor's inputs, one prompt with a video each; a single one may come by itself.
        config: of the first stage, as for :func:`sharpv.apply`.
        options: fields of :class:`Config`, which replace the config's.
        tolerance: how far the answers may move, mean KL divergence per token in nats, above 0.
        max_new_tokens: of an answer.

    Raises:
        TypeError: a number that is none.
        ValueError: no prompt, a batch of several, no answer of two tokens, a tolerance that is not above 0, or a
            configuration that has a second stage already.

    Example:
        >>> found = sharpv.calibrate(model, prompts, retention=0.25)
        >>> print(found.config)
        sharpv retention=0.25 memory=layers:keep=0+23+24
        >>> found.config.save("mine.json")
        >>> pruning = sharpv.apply(model, sharpv.Config.load("mine.json"))
    """
    asked = Config.of(config, **options)
    require(asked, tolerance)
    prompts = [prompts] if isinstance(prompts, Mapping) else prompts
    max_new_tokens = whole("max_new_tokens", max_new_tokens, least=1)
    depth = len(model.get_decoder().layers)
    with torch.no_grad(), apply(model, asked, memory=KeepLayers(tuple(range(depth)))):
        read = [_read(model, inputs, max_new_tokens) for inputs in prompts]
        replays = [replay for replay in read if replay is not None]
        if not replays:
            raise ValueError(f"calibrate needs answers of at least two tokens, got none from {len(read)} prompts")
        able = [i for i, layer in enumerate(replays[0].cache.layers) if isinstance(layer, ForgettingLayer)]
        alone = {index: _harm(replays, [index]) for index in able}
        order = sorted(able, key=alone.__getitem__)
        gone, together = _most(replays, order, tolerance)
    return Calibration(
        config=replace(asked, memory=KeepLayers(tuple(index for index in able if index not in gone))),
        harm=tuple(alone.get(index, math.nan) for index in range(depth)),
        together=together,
        answers=len(replays),
        tokens=sum(replay.answer.shape[1] for replay in replays),
    )


def require(config: Config, tolerance: float) -> None:
    """Refuse what :func:`calibrate` refuses whatever the model."""
    if config.second is not None:
        raise ValueError(f"calibrate looks for the second stage itself, got memory={config.second}: pass memory=None")
    number("tolerance", tolerance, above=0, most=math.inf)


@dataclass
class _Replay:
    """A prompt that has been read, and the model's answer to it."""

    model: PreTrainedModel
    cache: Cache
    visual: Tensor
    """(1, N) bool, the prompt's visual tokens."""
    count: int
    """How many they are."""
    answer: Tensor
    """(1, tokens) ids: all but the answer's last."""

    def log_probs(self, gone: Sequence[int]) -> Tensor:
        """(tokens, vocabulary) log-probabilities after each token of the answer when these layers have forgotten."""
        cache = copy.copy(self.cache)
        # appending to a layer and forgetting make new tensors; what else a model keeps may be written in place
        cache.layers = [
            copy.copy(layer) if isinstance(layer, ForgettingLayer) else copy.deepcopy(layer) for layer in cache.layers
        ]
        for index in gone:
            layer: Any = cache.layers[index]
            layer.forget(self.visual.to(layer.keys.device), self.count, self.count)
        logits = self.model(input_ids=self.answer, use_cache=True, **{CACHE: cache}).logits
        return functional.log_softmax(logits[0].float(), dim=-1)

    @cached_property
    def before(self) -> Tensor:
        """The log-probabilities with nothing forgotten."""
        return self.log_probs([])


def _read(model: PreTrainedModel, inputs: Mapping[str, Any], max_new_tokens: int) -> _Replay | None:
    """None if the answer has only one token."""
    samples, length = inputs["input_ids"].shape
    if samples != 1:
        raise ValueError(f"calibrate takes one prompt at a time, got a batch of {samples}")
    said: Any = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens)
    answer = said[:, length:-1]
    if not answer.numel():
        return None
    # not the cache that the answer came from: a recurrent state cannot be taken back to the prompt
    cache = model(**inputs, use_cache=True, logits_to_keep=1)[CACHE]
    trace = trace_of(cache)
    if trace is None:
        raise ValueError("calibrate takes prompts with a video, got one without")
    return _Replay(model, cache, trace.visual, int(trace.visual.sum()), answer)


def _harm(replays: Sequence[_Replay], gone: Sequence[int]) -> float:
    """Mean KL(before || now) per token."""
    moved = [
        functional.kl_div(replay.log_probs(gone), replay.before, log_target=True, reduction="none").sum(dim=-1)
        for replay in replays
    ]
    return float(torch.cat(moved).mean())


def _most(replays: Sequence[_Replay], order: Sequence[int], tolerance: float) -> tuple[set[int], float]:
    """The longest beginning of ``order`` that may forget together, and its harm, by bisection."""
    fewest, most, harm = 0, len(order), 0.0
    while fewest < most:
        middle = (fewest + most + 1) // 2
        moved = _harm(replays, order[:middle])
        if moved <= tolerance:
            fewest, harm = middle, moved
        else:
            most = middle - 1
    return set(order[:fewest]), harm
