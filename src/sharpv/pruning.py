"""Pruning on a model, and taking it off again.

``generate`` and ``forward`` of one model instance are covered by callables that hand a shorter prompt to the model's
own methods; the decoder layers get hooks for the second stage. No class is touched, nothing happens at import, and
:meth:`Pruning.remove` leaves no trace.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import Cache, PreTrainedModel

from .calls import PrunedCalls
from .config import Config
from .covers import Cover
from .kvcache.attach import attach
from .kvcache.cache import CACHE, take_cache
from .models import find_family
from .report import Report
from .request import Request, request_on
from .versions import warn_of_transformers
from .vision import encoding


class Pruning:
    """Pruning on one model. Made by :func:`sharpv.apply`; a context manager that removes itself.

    Several threads may generate at once: a request's state lies on its cache. :attr:`report` is then that of whichever
    ended last; :meth:`report_of` finds each one's own.

    Attributes:
        model: the covered model.
        config: how it is pruned.
        active: whether it is; False from :meth:`remove` on.
    """

    def __init__(self, model: PreTrainedModel, config: Config) -> None:
        warn_of_transformers(stacklevel=2)  # whoever called sharpv.apply
        family = find_family(model)
        encoding.require(family, config.encoding)
        if Pruning.of(model) is not None:
            raise ValueError("this model is already pruned by sharpv: call remove() on its pruning first")
        self.model = model
        self.config = config
        self.active = True
        self._calls = PrunedCalls(model, family, config, self._ended)
        self._last: Request | None = None
        self._running: set[object] = set()
        """One entry per call that is under way."""
        self._hooks: list[RemovableHandle] = []
        if config.second is not None:
            self._refuse_hooks_twice()
            self._hooks = attach(config.second, model)
        self._covers = [
            Cover(self, name, run, getattr(model, name), vars(model).get(name))
            for name, run in {"generate": self._cover_generate, "forward": self._cover_forward}.items()
        ]
        for cover in self._covers:
            vars(model)[cover.name] = cover

    @staticmethod
    def of(model: PreTrainedModel) -> Pruning | None:
        """The active pruning of a model, or None; also finds the one that a deepcopy carries."""
        cover = Cover.at(model, "generate")
        return cover.owner if cover is not None and cover.owner.active else None

    @property
    def report(self) -> Report | None:
        """The last pruned pass or generation; None before the first, and unchanged by prompts without a video."""
        return None if self._last is None else self._last.report

    def report_of(self, output: Any) -> Report | None:
        """The report of one request, from its cache or from an output that holds its cache; None if there is none.

        >>> out = model.generate(**inputs, max_new_tokens=64, return_dict_in_generate=True)
        >>> print(pruning.report_of(out))
        """
        request = request_on(output if isinstance(output, Cache) else getattr(output, CACHE, None))
        return None if request is None else request.report

    @torch.no_grad()
    def prefill(self, **inputs: Any) -> Cache:
        """Read a prompt up to its question, once: the cache holds it, pruned.

        A later turn on a copy of it (:func:`sharpv.request.copy_of`) brings the whole prompt's ids, and costs the
        question's tokens only. A criterion of the second stage decides after that turn's prefill, as it would have.

        Args:
            inputs: what the processor made, ids and mask cut before the question.

        Raises:
            ValueError: a method or second stage that has to know the question, or no video.

        >>> cache = pruning.prefill(**{**inputs, "input_ids": ids[:, :end], "attention_mask": mask[:, :end]})
        >>> out = model.generate(input_ids=ids, attention_mask=mask, cache=copy_of(cache))
        """
        with self._under_way():
            forward = next(cover for cover in self._covers if cover.name == "forward")
            return self._calls.prefill(forward.original, inputs)

    @property
    def finished(self) -> bool:
        """Whether it is removed and nothing that began under it still runs."""
        return not self.active and not self._running

    def remove(self) -> None:
        """Give the model back as it was, to the bit and the attribute. Calling it again does nothing.

        A generation that still runs in another thread ends as it began; the model is as it was once that has ended.
        New calls are dense from now on.
        """
        self.active = False
        self._take_off()

    def __enter__(self) -> Pruning:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        state = "active" if self.active else "removed"
        return f"<sharpv {state} on {type(self.model).__name__}: {self.config}>"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_running": set()}  # a copy runs nothing yet

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
        if cover is not None and not cover.owner.finished and cover.owner.config.second is not None:
            raise ValueError(
                "a generation that began under a pruning which is removed by now still runs on this model, and both "
                "act inside it: wait for it to end"
            )

    # what stands in for the model's own methods

    @torch.no_grad()  # as transformers' own: the vision side must not keep its activations
    def _cover_generate(
        self,
        original: Callable[..., Any],
        inputs: Tensor | None = None,
        generation_config: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if inputs is not None:
            kwargs["input_ids"] = inputs
        with self._under_way():
            if self.active:
                return self._calls.generate(original, generation_config, *args, **kwargs)
            return original(None, generation_config, *args, **kwargs)

    def _cover_forward(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if args:
            kwargs.update(zip(inspect.signature(original).parameters, args, strict=False))
        cache = take_cache(kwargs)
        if self._calls.is_inner(kwargs, cache):
            return original(**self._calls.joined(kwargs))
        with self._under_way():
            return self._calls.forward(original, cache, kwargs) if self.active else original(**kwargs)

    def _ended(self, request: Request) -> None:
        self._last = request
