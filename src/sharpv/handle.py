"""Pruning on a model, and taking it off again.

``generate`` and ``forward`` of one model instance are covered by callables that hand a shorter prompt to the model's
own methods; the decoder layers get hooks for the memory stage. No class is touched, nothing happens at import, and
:meth:`Handle.remove` leaves no trace.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import Cache, DynamicCache, PreTrainedModel

from .cache import CACHE, new_cache, take_cache
from .conversation import (
    Request,
    later_turn,
    next_pass,
    refuse_lost_entries,
    refuse_new_video,
    refuse_torn,
    release,
    remember,
    request_on,
)
from .covers import Cover, FullPromptStreamer, with_full_prompt
from .memory import MemoryStage, enable_forgetting, trace_of
from .methods import InnerMethod
from .models import find_family
from .models.base import RAW_PIXELS
from .modes import generation_option, inferred_mask, refuse_mode
from .prompt import PrunedPrompt, Settings, prune
from .report import Report, make_report
from .withdrawal import WithdrawalStage


class Handle:
    """Pruning on one model. Made by :func:`sharpv.apply`; a context manager that removes itself.

    Several threads may generate at once: a request's state lies on its cache. ``report`` is then that of whichever
    ended last; :meth:`report_of` finds each one's own.

    Attributes:
        model: the covered model.
        settings: method, budget, memory criterion and positions.
        report: the last pruned pass or generation as a :class:`~sharpv.report.Report`; None before the first, and
            unchanged by prompts without a video.
        active: whether the model is pruned; False from :meth:`remove` on.
    """

    def __init__(self, model: PreTrainedModel, settings: Settings) -> None:
        self.family = find_family(model)
        settings.encoding.require(self.family)
        if Handle.of(model) is not None:
            raise ValueError("this model is already pruned by sharpv: call remove() on its handle first")
        self.model = model
        self.settings = settings
        self.report: Report | None = None
        self.active = True
        self._running: set[object] = set()
        """One entry per call that is under way."""
        self._hooks: list[RemovableHandle] = []
        if settings.inside:
            self._refuse_hooks_twice()
        if isinstance(settings.method, InnerMethod):
            self._hooks = WithdrawalStage(settings.method, settings.budget).attach(model)
        elif settings.memory is not None:
            self._hooks = MemoryStage(settings.memory).attach(model.get_decoder().layers)
        self._covers = [
            Cover(self, name, getattr(model, name), vars(model).get(name)) for name in ("generate", "forward")
        ]
        for cover in self._covers:
            vars(model)[cover.name] = cover

    @property
    def finished(self) -> bool:
        """Whether it is removed and nothing that began under it still runs."""
        return not self.active and not self._running

    @staticmethod
    def of(model: PreTrainedModel) -> Handle | None:
        """The active handle that covers a model, or None; also finds the one that a deepcopy carries."""
        cover = Cover.at(model, "generate")
        return cover.handle if cover is not None and cover.handle.active else None

    def remove(self) -> None:
        """Give the model back as it was, to the bit and the attribute. Calling it again does nothing.

        A generation that still runs in another thread ends as it began; the model is as it was once that has ended.
        New calls are dense from now on.
        """
        self.active = False
        self._take_off()

    def report_of(self, output: Any) -> Report | None:
        """The report of one request, from its cache or from an output that holds its cache; None if there is none.

        >>> out = model.generate(**inputs, max_new_tokens=64, return_dict_in_generate=True)
        >>> print(pruning.report_of(out))
        """
        request = request_on(output if isinstance(output, Cache) else getattr(output, CACHE, None))
        return None if request is None else request.report

    def _take_off(self) -> None:
        if self.finished:
            for hook in self._hooks:
                hook.remove()
            for cover in self._covers:
                cover.take_off()

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        """Around a call from outside: what it needs stays on the model until it ends."""
        call = object()
        self._running.add(call)
        try:
            yield
        finally:
            self._running.discard(call)
            self._take_off()

    def _refuse_hooks_twice(self) -> None:
        """Two sets of hooks would both act on one cache."""
        cover = Cover.at(self.model, "generate")
        if cover is not None and not cover.handle.finished and cover.handle.settings.inside:
            raise ValueError(
                "a generation that began under a pruning which is removed by now still runs on this model, and both "
                "act inside it: wait for it to end"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_running": set()}  # a copy runs nothing yet

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        state = "active" if self.active else "removed"
        return f"<sharpv {state} on {type(self.model).__name__}: {self.settings.method}>"

    # generate ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()  # as transformers' own: the vision side must not keep its activations
    def generate(
        self,
        original: Callable[..., Any],
        inputs: Tensor | None = None,
        generation_config: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """The model's ``generate`` on the shorter prompt; what it returns begins with the full prompt."""
        if inputs is not None:
            kwargs["input_ids"] = inputs
        with self._under_way():
            if not self.active:
                return original(None, generation_config, *args, **kwargs)
            return self._generate(original, generation_config, *args, **kwargs)

    def _generate(self, original: Callable[..., Any], generation_config: Any, *args: Any, **kwargs: Any) -> Any:
        cache = take_cache(kwargs)
        release(cache)
        before = request_on(cache)
        if before is None and not self.family.has_video(kwargs):
            return original(None, generation_config, *args, **self.family.stock_inputs(kwargs))
        option = functools.partial(generation_option, self.model, generation_config, kwargs)
        refuse_mode(self.model, self.family, self.settings, option, kwargs)

        full = kwargs.get("input_ids")
        if full is None:
            raise ValueError("sharpv finds the video by its placeholders: pass input_ids, not inputs_embeds")
        if kwargs.get("attention_mask") is None:
            kwargs["attention_mask"] = inferred_mask(full, option("pad_token_id"), option("eos_token_id"))
        request = before
        if before is not None:
            self._refuse_cache(cache)
            rows = len(full) * max(option("num_beams") or 1, option("num_return_sequences") or 1)
            kwargs = later_turn(self.model, self.family, before, cache, kwargs, rows)
            prompt = before.prompt
        else:
            kwargs, prompt = prune(self.model, self.family, self.settings, kwargs)
            if option("use_cache") is not False and option("cache_implementation") in (None, "dynamic"):
                kwargs[CACHE] = cache = self._prepare_cache(cache, prompt)
                kwargs["cache_implementation"] = None
                request = request_on(cache, empty=True)

        # what the caller counts in full prompts is counted in shorter ones here
        for name in ("max_length", "min_length"):
            limit = option(name)
            if limit and option(name.replace("length", "new_tokens")) is None:
                if name == "max_length" and limit <= full.shape[1]:
                    raise ValueError(f"the prompt has {full.shape[1]} tokens, but max_length is {limit}: raise it")
                kwargs[name] = max(limit - prompt.removed, 0)
        if kwargs.get("streamer") is not None:
            kwargs["streamer"] = FullPromptStreamer(kwargs["streamer"], full)
        with request.generation() if request is not None else nullcontext():
            out = original(None, generation_config, *args, **kwargs)
        shorter = kwargs["input_ids"].shape[1]
        sequences = with_full_prompt(out if isinstance(out, Tensor) else out.sequences, full, shorter)
        made = getattr(out, CACHE, None)
        if request is None and made is not None:  # one that transformers made, static or quantized
            request = remember(made, prompt)
        if request is not None:
            request.heard(sequences, cache if made is None else made)
        self._note(prompt, request, cache)
        if isinstance(out, Tensor):
            return sequences
        out.sequences = sequences
        return out

    # forward ----------------------------------------------------------------------------------------------------------

    def forward(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The model's ``forward`` on the shorter prompt: logits have its length, labels are shortened along."""
        if args:
            kwargs.update(zip(inspect.signature(original).parameters, args, strict=False))
        cache = take_cache(kwargs)
        if self._is_inner(kwargs, cache):
            return original(**self._joined(kwargs))
        with self._under_way():
            if not self.active:
                return original(**kwargs)
            return self._forward(original, cache, kwargs)

    def _forward(self, original: Callable[..., Any], cache: Any, kwargs: dict[str, Any]) -> Any:
        release(cache)
        request, fresh = request_on(cache), None
        tokens = kwargs.get("input_ids")
        if request is None and self.family.has_video(kwargs):
            if isinstance(kwargs.get("logits_to_keep"), Tensor):
                raise ValueError("logits_to_keep as indices would count in the full prompt: pass a number instead")
            kwargs, fresh = prune(self.model, self.family, self.settings, kwargs)
            wants_cache = kwargs.get("use_cache")
            if wants_cache is None:
                wants_cache = getattr(self.model.config.get_text_config(), "use_cache", True)
            if isinstance(self.settings.method, InnerMethod) and (not wants_cache or kwargs.get("labels") is not None):
                raise ValueError(
                    f"{self.settings.method.name} drops tokens inside the model: logits would not have the labels' "
                    "length, and without a cache nothing would know; pass no labels and use_cache=True"
                )
            if wants_cache:
                kwargs[CACHE] = cache = self._prepare_cache(cache, fresh)
                request = request_on(cache, empty=True)
        elif request is not None:
            self._refuse_cache(cache)
            kwargs = next_pass(request.prompt, cache, kwargs)
            request.fed(tokens, cache)
        out = original(**self._joined(self.family.stock_inputs(kwargs)))
        if fresh is not None:
            self._note(fresh, request, cache)
        return out

    def _is_inner(self, kwargs: Mapping[str, Any], cache: Any) -> bool:
        """Whether everything is prepared: the pass brings encoded videos, or a cache that ``generate`` is filling."""
        encoded = kwargs.get("mm_encoder_outputs") is not None
        pixels = any(kwargs.get(name) is not None for name in RAW_PIXELS.values())
        request = request_on(cache, empty=True)
        return (encoded and not pixels) or (request is not None and request.generating)

    def _joined(self, kwargs: dict[str, Any]) -> dict[str, Any]:
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

    def _refuse_cache(self, cache: Cache) -> None:
        refuse_torn(cache)
        if not self.settings.inside:
            refuse_lost_entries(cache)

    def _prepare_cache(self, cache: Cache | None, prompt: PrunedPrompt) -> Cache:
        if cache is None:
            cache = new_cache(self.model.config)
        refuse_new_video(cache)
        if self.settings.inside:
            enable_forgetting(cache, self.model.config, prompt.visual, prompt.inputs["attention_mask"].bool())
        remember(cache, prompt)
        return cache

    def _note(self, prompt: PrunedPrompt, request: Request | None, cache: Any) -> None:
        dynamic = cache if isinstance(cache, DynamicCache) else None
        layers = len(self.model.get_decoder().layers)
        report = make_report(repr(self.settings.method), prompt, layers, trace_of(cache), dynamic)
        if request is not None:
            request.report = report
        self.report = report
