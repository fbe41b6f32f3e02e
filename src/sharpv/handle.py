"""Pruning on a model, and taking it off again.

``generate`` and ``forward`` of one model instance are covered by callables that hand a shorter prompt to the model's
own methods; the decoder layers get hooks for the memory stage. No class is touched, nothing happens at import, and
:meth:`Handle.remove` leaves no trace.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import Cache, DynamicCache, PreTrainedModel

from .cache import CACHE, new_cache, take_cache
from .conversation import later_turn, next_pass, prompt_on, refuse_lost_entries, refuse_new_video, release, remember
from .covers import Cover, FullPromptStreamer, with_full_prompt
from .memory import MemoryStage, enable_forgetting, trace_of
from .methods import InnerMethod
from .models import find_family
from .modes import generation_option, inferred_mask, refuse_mode
from .prompt import PrunedPrompt, Settings, prune
from .report import Report, make_report
from .withdrawal import WithdrawalStage


class Handle:
    """Pruning on one model. Made by :func:`sharpv.apply`; a context manager that removes itself.

    Attributes:
        model: the covered model.
        settings: method, budget, memory criterion and positions.
        report: the last pruned pass or generation as a :class:`~sharpv.report.Report`; None before the first, and
            unchanged by prompts without a video.
    """

    def __init__(self, model: PreTrainedModel, settings: Settings) -> None:
        self.family = find_family(model)
        settings.encoding.require(self.family)
        if Handle.of(model) is not None:
            raise ValueError("this model is already pruned by sharpv: call remove() on its handle first")
        self.model = model
        self.settings = settings
        self.report: Report | None = None
        self._generating = False  # generate has prepared everything for the forward passes inside it
        self._hooks: list[RemovableHandle] = []
        self._covered: dict[str, Any] = {}
        if isinstance(settings.method, InnerMethod):
            self._hooks = WithdrawalStage(settings.method, settings.budget).attach(model)
        elif settings.memory is not None:
            self._hooks = MemoryStage(settings.memory).attach(model.get_decoder().layers)
        for name in ("generate", "forward"):
            # an instance attribute that is already there (accelerate's, say) is put back by remove()
            self._covered[name] = vars(model).get(name)
            vars(model)[name] = Cover(self, name, getattr(model, name))

    @property
    def active(self) -> bool:
        """Whether the model is covered."""
        return bool(self._covered)

    @staticmethod
    def of(model: PreTrainedModel) -> Handle | None:
        """The handle that covers a model, or None; also finds the one that a deepcopy carries."""
        cover = vars(model).get("generate")
        return cover.handle if isinstance(cover, Cover) else None

    def remove(self) -> None:
        """Give the model back as it was, to the bit and the attribute. Calling it again does nothing."""
        for hook in self._hooks:
            hook.remove()
        for name, before in self._covered.items():
            cover = vars(self.model).get(name)
            if not (isinstance(cover, Cover) and cover.handle is self):
                continue  # somebody has wrapped the cover since: it only passes on from now
            if before is None:
                del vars(self.model)[name]
            else:
                vars(self.model)[name] = before
        self._hooks, self._covered = [], {}

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
        cache = take_cache(kwargs)
        release(cache)
        before = prompt_on(cache)
        if before is None and not self.family.has_video(kwargs):
            return original(None, generation_config, *args, **self.family.stock_inputs(kwargs))
        option = functools.partial(generation_option, self.model, generation_config, kwargs)
        refuse_mode(self.model, self.family, self.settings, option, kwargs)

        full = kwargs.get("input_ids")
        if full is None:
            raise ValueError("sharpv finds the video by its placeholders: pass input_ids, not inputs_embeds")
        if kwargs.get("attention_mask") is None:
            kwargs["attention_mask"] = inferred_mask(full, option("pad_token_id"), option("eos_token_id"))
        if before is not None:
            self._refuse_cache(cache)
            kwargs, prompt = later_turn(self.model, self.family, before, cache, kwargs), before
        else:
            kwargs, prompt = prune(self.model, self.family, self.settings, kwargs)
            if option("use_cache") is not False and option("cache_implementation") in (None, "dynamic"):
                kwargs[CACHE] = cache = self._prepare_cache(cache, prompt)
                kwargs["cache_implementation"] = None

        # what the caller counts in full prompts is counted in shorter ones here
        for name in ("max_length", "min_length"):
            limit = option(name)
            if limit and option(name.replace("length", "new_tokens")) is None:
                if name == "max_length" and limit <= full.shape[1]:
                    raise ValueError(f"the prompt has {full.shape[1]} tokens, but max_length is {limit}: raise it")
                kwargs[name] = max(limit - prompt.removed, 0)
        if kwargs.get("streamer") is not None:
            kwargs["streamer"] = FullPromptStreamer(kwargs["streamer"], full)
        self._generating = True
        try:
            out = original(None, generation_config, *args, **kwargs)
        finally:
            self._generating = False
        made = getattr(out, CACHE, None)
        if made is not None and cache is None:  # one that transformers made, static or quantized
            remember(made, prompt)
        self._note(prompt, cache)

        shorter = kwargs["input_ids"].shape[1]
        if isinstance(out, Tensor):
            return with_full_prompt(out, full, shorter)
        out.sequences = with_full_prompt(out.sequences, full, shorter)
        return out

    # forward ----------------------------------------------------------------------------------------------------------

    def forward(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The model's ``forward`` on the shorter prompt: logits have its length, labels are shortened along."""
        if args:
            kwargs.update(zip(inspect.signature(original).parameters, args, strict=False))
        if self._generating:
            return original(**self._joined(kwargs))
        cache = take_cache(kwargs)
        release(cache)
        before = prompt_on(cache)
        prompt = None
        if before is None and self.family.has_video(kwargs):
            if isinstance(kwargs.get("logits_to_keep"), Tensor):
                raise ValueError("logits_to_keep as indices would count in the full prompt: pass a number instead")
            kwargs, prompt = prune(self.model, self.family, self.settings, kwargs)
            wants_cache = kwargs.get("use_cache")
            if wants_cache is None:
                wants_cache = getattr(self.model.config.get_text_config(), "use_cache", True)
            if isinstance(self.settings.method, InnerMethod) and (not wants_cache or kwargs.get("labels") is not None):
                raise ValueError(
                    f"{self.settings.method.name} drops tokens inside the model: logits would not have the labels' "
                    "length, and without a cache nothing would know; pass no labels and use_cache=True"
                )
            if wants_cache:
                kwargs[CACHE] = cache = self._prepare_cache(cache, prompt)
        elif before is not None:
            self._refuse_cache(cache)
            kwargs = next_pass(before, cache, kwargs)
        out = original(**self._joined(self.family.stock_inputs(kwargs)))
        if prompt is not None:
            self._note(prompt, cache)
        return out

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

    def _note(self, prompt: PrunedPrompt, cache: Any) -> None:
        dynamic = cache if isinstance(cache, DynamicCache) else None
        layers = len(self.model.get_decoder().layers)
        self.report = make_report(repr(self.settings.method), prompt, layers, trace_of(cache), dynamic)
