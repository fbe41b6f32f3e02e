"""The model's own ``generate`` and ``forward`` on a shorter prompt: what they are given, and what comes back.

Callers go on counting in full prompts. A pass inside ``generate`` is known by what it carries, encoded videos or a
cache that is being filled, never by a flag on the model.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from .config import Config
from .kvcache.base import Criterion, Withdrawal
from .kvcache.cache import CACHE, new_cache, take_cache
from .kvcache.memory import enable_forgetting, trace_of
from .models import Family
from .models.base import RAW_PIXELS
from .modes import generation_option, inferred_mask, refuse_mode
from .prompt.conversation import later_turn, next_pass
from .prompt.prune import prune
from .prompt.returned import FullPromptStreamer, with_full_prompt
from .request import Request, refuse_lost_entries, refuse_new_video, refuse_torn, release, remember, request_on


class PrunedCalls:
    """``generate`` and ``forward`` of one model; ``ended`` is told of each request whose prompt was read."""

    def __init__(
        self, model: PreTrainedModel, family: Family, config: Config, ended: Callable[[Request], None]
    ) -> None:
        self.model, self.family, self.config, self.ended = model, family, config, ended

    def generate(self, original: Callable[..., Any], generation_config: Any, *args: Any, **kwargs: Any) -> Any:
        """``original`` on the shorter prompt; sequences begin with the full one."""
        cache = take_cache(kwargs)
        release(cache)
        known = request_on(cache)
        if known is None and not self.family.has_video(kwargs):
            return original(None, generation_config, *args, **self.family.stock_inputs(kwargs))
        option = functools.partial(generation_option, self.model, generation_config, kwargs)
        refuse_mode(self.model, self.family, self.config, option, kwargs)

        full = kwargs.get("input_ids")
        if full is None:
            raise ValueError("sharpv finds the video by its placeholders: pass input_ids, not inputs_embeds")
        if kwargs.get("attention_mask") is None:
            kwargs["attention_mask"] = inferred_mask(full, option("pad_token_id"), option("eos_token_id"))
        if known is not None:
            request = known
            self._refuse_cache(cache)
            rows = len(full) * max(option("num_beams") or 1, option("num_return_sequences") or 1)
            kwargs = later_turn(self.model, self.family, request.prompt, request.said, cache, kwargs, rows)
        else:
            kwargs, request = self._prune(kwargs)
            if option("use_cache") is not False and option("cache_implementation") in (None, "dynamic"):
                kwargs[CACHE] = cache = self._prepare_cache(cache, request)
                kwargs["cache_implementation"] = None
        self._count_in_shorter_prompts(kwargs, full, request.prompt.removed, option)
        if kwargs.get("streamer") is not None:
            kwargs["streamer"] = FullPromptStreamer(kwargs["streamer"], full)

        with request.generation():
            out = original(None, generation_config, *args, **kwargs)

        sequences = with_full_prompt(
            out if isinstance(out, Tensor) else out.sequences, full, kwargs["input_ids"].shape[1]
        )
        made = getattr(out, CACHE, None)
        if cache is None and made is not None:  # one that transformers made, static or quantized
            remember(made, request)
        if (filled := cache if made is None else made) is not None:
            request.heard(sequences, filled)
        self._ended(request, cache)
        if isinstance(out, Tensor):
            return sequences
        out.sequences = sequences
        return out

    def _count_in_shorter_prompts(
        self, kwargs: dict[str, Any], full: Tensor, removed: int, option: Callable[[str], Any]
    ) -> None:
        """What the caller counts in full prompts is counted in shorter ones inside."""
        for name in ("max_length", "min_length"):
            limit = option(name)
            if limit and option(name.replace("length", "new_tokens")) is None:
                if name == "max_length" and limit <= full.shape[1]:
                    raise ValueError(f"the prompt has {full.shape[1]} tokens, but max_length is {limit}: raise it")
                kwargs[name] = max(limit - removed, 0)

    def forward(self, original: Callable[..., Any], cache: Any, kwargs: dict[str, Any]) -> Any:
        """``original`` on the shorter prompt: logits have its length, labels are shortened along."""
        release(cache)
        request = request_on(cache)
        if request is not None:
            self._refuse_cache(cache)
            tokens = kwargs.get("input_ids")
            kwargs = next_pass(request.prompt, cache, kwargs)
            request.fed(tokens, cache)
            return original(**self.joined(kwargs))
        if not self.family.has_video(kwargs):
            return original(**self.joined(self.family.stock_inputs(kwargs)))
        if isinstance(kwargs.get("logits_to_keep"), Tensor):
            raise ValueError("logits_to_keep as indices would count in the full prompt: pass a number instead")
        wants_cache = kwargs.get("use_cache")
        if wants_cache is None:
            wants_cache = getattr(self.model.config.get_text_config(), "use_cache", True)
        second = self.config.second
        if second is not None and second.shortens and (not wants_cache or kwargs.get("labels") is not None):
            raise ValueError(
                f"{second.name} drops tokens inside the model: logits would not have the labels' "
                "length, and without a cache nothing would know; pass no labels and use_cache=True"
            )
        kwargs, request = self._prune(kwargs)
        if wants_cache:
            kwargs[CACHE] = cache = self._prepare_cache(cache, request)
        out = original(**self.joined(self.family.stock_inputs(kwargs)))
        self._ended(request, cache)
        return out

    def prefill(self, original: Callable[..., Any], kwargs: dict[str, Any]) -> Cache:
        """``original`` reads a prompt that ends before its question, into a cache of its own.

        Raises:
            ValueError: a method or second stage that has to know the question, or no video.
        """
        second = self.config.second
        if self.config.first.needs_question:
            raise ValueError(f"method {self.config.first.name!r} has to know the question before the video is read")
        if isinstance(second, Withdrawal) and second.reads_attention:
            raise ValueError(f"memory={second.name!r} has to know the question before the video is read")
        if not self.family.has_video(kwargs):
            raise ValueError("there is nothing to share: these inputs hold no video")
        kwargs, request = self._prune(kwargs)
        cache = self._prepare_cache(None, request)
        trace = trace_of(cache)
        if trace is not None and isinstance(second, Criterion):
            trace.postponed = True
        passed = self.family.stock_inputs({**kwargs, CACHE: cache, "use_cache": True, "logits_to_keep": 1})
        original(**self.joined(passed))
        self._ended(request, cache)
        return cache

    def is_inner(self, kwargs: Mapping[str, Any], cache: Any) -> bool:
        """Whether everything is prepared: the pass brings encoded videos, or a cache that ``generate`` is filling."""
        encoded = kwargs.get("mm_encoder_outputs") is not None
        pixels = any(kwargs.get(name) is not None for name in RAW_PIXELS.values())
        request = request_on(cache, empty=True)
        return (encoded and not pixels) or (request is not None and request.generating)

    def joined(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Video features as this family's forward wants them, from the list that survives beams and ragged batches."""
        encoded = kwargs.get("mm_encoder_outputs")
        modality = self.family.handed_as
        if not self.family.batched_features or not encoded or encoded.get(modality) is None:
            return kwargs
        output = encoded[modality]
        if isinstance(output.pooler_output, Tensor):
            return kwargs
        output = copy.copy(output)
        output.pooler_output = torch.cat(list(output.pooler_output))[None]
        return {**kwargs, "mm_encoder_outputs": {**encoded, modality: output}}

    def _prune(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], Request]:
        shorter, prompt = prune(self.model, self.family, self.config, kwargs)
        layers = len(self.model.get_decoder().layers)
        return shorter, Request(str(self.config), layers, prompt, prompt.ids[:, :0])

    def _refuse_cache(self, cache: Cache) -> None:
        refuse_torn(cache)
        if self.config.second is None:
            refuse_lost_entries(cache)

    def _prepare_cache(self, cache: Cache | None, request: Request) -> Cache:
        if cache is None:
            cache = new_cache(self.model.config)
        refuse_new_video(cache)
        if self.config.second is not None:
            prompt = request.prompt
            enable_forgetting(cache, self.model.config, prompt.visual, prompt.inputs["attention_mask"].bool())
        remember(cache, request)
        return cache

    def _ended(self, request: Request, cache: Any) -> None:
        request.ended(cache)
        self.ended(request)
