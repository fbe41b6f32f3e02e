"""A clip that was read once: every question about it costs its own tokens only.

The prompt up to the question is the same for every question, so its visual tokens are chosen and prefilled once; each
question goes on from a copy of that cache, which shares its tensors. What comes out equals asking one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature, Cache, PreTrainedModel, ProcessorMixin

from ..asking import Answer, answer, encode_turns
from ..config import Config
from ..door import apply
from ..kvcache.cache import CACHE
from ..kvcache.memory import trace_of
from ..models import find_family, unwrapped
from ..prompt.columns import PER_TOKEN
from ..pruning import Pruning
from ..report import Report
from ..request import copy_of, remember, request_on
from ..video.clip import Clip

NOT_HERE = (
    "use_cache", "num_beams", "num_return_sequences", "prompt_lookup_num_tokens", "assistant_model",
    "return_dict_in_generate", "streamer",
)  # fmt: skip
"""Ways of generating that need a prompt of their own: sharpv.apply and generate have them."""
PROBES = "What?", "Is it so, or not?"
"""Questions that show where a prompt begins to differ."""


class Session:
    """A clip, or several, read once: system prompt and video are prefilled, pruned. Nothing stays on the model.

    Questions from several threads have to take turns.

    Args:
                model: as for :func:`sharpv.apply`.
        processor: the model's own.
        clip: what :func:`sharpv.read_video` gives.
                config: as for :func:`sharpv.apply`; ``retention=1.0`` keeps every token.
        options: fields of :class:`Config`, which replace the config's.
        images: stills that stand behind the clips.
        system: a system prompt, if the model's template takes one.

    Attributes:
        config: how the clip is pruned.
        report: of the last question; before the first, of the prefill.
        tokens: of the prompt up to the question: as it was, and as it is stored.

    Raises:
        ValueError: a method that has to know the question (CDPruner, FastV), or what :func:`sharpv.apply` refuses.

    >>> session = sharpv.Session(model, processor, sharpv.read_video("clip.mp4", frames=16), retention=0.25)
    >>> session.ask("What happens?").text
    >>> session.ask("Who is there?").text  # the video is not read again
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        clip: Clip | Sequence[Clip],
        config: Config | str = "sharpv",
        *,
        images: Sequence[Any] = (),
        system: str | None = None,
        **options: Any,
    ) -> None:
        self.model, self.processor = unwrapped(model), processor
        self.config = Config.of(config, **options)
        self._clips = [clip] if isinstance(clip, Clip) else list(clip)
        if not self._clips or not all(isinstance(each, Clip) for each in self._clips):
            raise TypeError(f"a session is about what sharpv.read_video returns, one or several, got {clip!r:.80}")
        self._images, self._system = images, system
        inputs = [self._inputs(question) for question in PROBES]
        probes = [each["input_ids"][0] for each in inputs]
        placeholder = getattr(self.model.config, find_family(self.model).placeholder)
        end = _end(probes, list(processor.tokenizer.added_tokens_decoder), placeholder)
        first = inputs[0].to(self.model.device, self.model.dtype)
        per_token = (*PER_TOKEN, "input_ids", "attention_mask")
        cut = {name: value[:, :end] if name in per_token else value for name, value in first.items()}
        self._head: Tensor = cut["input_ids"]
        self._fixed: tuple[int, str] | None = None
        self._fixed = self._find_tail(probes, end)
        with self._pruned() as pruning:
            self._cache: Cache = pruning.prefill(**cut)
            assert pruning.report is not None
            self.report: Report = pruning.report
        self.tokens = end, int(self._cache.get_seq_length())

    def ask(self, question: str, max_new_tokens: int = 128, **generation: Any) -> Answer:
        """Answer one question, greedily unless told otherwise; the session is left as it was.

        Args:
            generation: as for ``generate``: sampling, penalties, limits.

        Raises:
            TypeError: a question that is no text.
            ValueError: an empty question, or a way of generating that needs a prompt of its own (beams, assisted).
        """
        _refuse(generation)
        inputs = self._question(question)
        with self._pruned() as pruning:
            said = answer(
                self.model, self.processor, inputs, max_new_tokens, **{CACHE: copy_of(self._cache)}, **generation
            )
            assert pruning.report is not None
            self.report = pruning.report
        return said

    def ask_all(self, questions: Sequence[str], max_new_tokens: int = 128, **generation: Any) -> list[str]:
        """Answer several questions as one batch, each as :meth:`ask` would; hybrid models one after the other."""
        _refuse(generation)
        if isinstance(questions, str):
            raise TypeError(f"ask_all takes a list of questions, got the text {questions!r}: pass it to ask")
        if not questions:
            return []
        if find_family(self.model).hybrid:  # a state would read the padding between
            return [self.ask(question, max_new_tokens, **generation).text for question in questions]
        asked = [self._question(question) for question in questions]
        width = max(each["input_ids"].shape[1] for each in asked)
        head = self._head.shape[1]
        ids = torch.stack([_padded(each["input_ids"][0], head, width) for each in asked])
        mask = torch.stack([_padded(each["attention_mask"][0], head, width) for each in asked])
        cache = repeated(copy_of(self._cache), len(asked), mask[:, head:].bool())
        given = {"input_ids": ids, "attention_mask": mask, CACHE: cache, "do_sample": False, **generation}
        with self._pruned() as pruning:
            out = self.model.generate(**given, max_new_tokens=max_new_tokens)
            assert pruning.report is not None
            self.report = pruning.report
        new = out[:, width:].tolist()
        return [self.processor.decode(each, skip_special_tokens=True).strip() for each in new]

    @contextmanager
    def _pruned(self) -> Iterator[Pruning]:
        """The model, pruned as this session asks, for the time of a call."""
        active = Pruning.of(self.model)
        if active is not None and active.config == self.config:
            yield active
            return
        with apply(self.model, self.config) as pruning:
            yield pruning

    def _turns(self, question: str) -> list[dict[str, Any]]:
        parts = [{"type": "video"} for _ in self._clips] + [{"type": "image"} for _ in self._images]
        user = {"role": "user", "content": [*parts, {"type": "text", "text": question}]}
        if self._system is None:
            return [user]
        return [{"role": "system", "content": [{"type": "text", "text": self._system}]}, user]

    def _inputs(self, question: str) -> Any:
        return encode_turns(self.model, self.processor, self._turns(question), self._clips, self._images)

    def _text(self, question: str) -> str:
        text: str = self.processor.apply_chat_template(self._turns(question), add_generation_prompt=True)
        return text

    def _question(self, question: str) -> BatchFeature:
        """The whole prompt's ids; of it the video's part is not processed again where that can be known beforehand."""
        if not isinstance(question, str):
            raise TypeError(f"a question must be text, got {type(question).__name__}")
        if not question.strip():
            raise ValueError(f"a question must hold some text, got {question!r}")
        if self._fixed is None:
            ids = self._inputs(question)["input_ids"]
            if not ids[:, : self._head.shape[1]].equal(self._head.cpu()):
                raise ValueError("this model's template begins differently for this question: open another session")
            ids = ids.to(self._head.device)
        else:
            ids = torch.cat([self._head, self._tail(question)[None]], dim=1)
        return BatchFeature({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    def _tail(self, question: str) -> Tensor:
        """Ids of a prompt after its head: what the template writes after the last token that stands for itself."""
        assert self._fixed is not None
        characters, mark = self._fixed
        text = mark + self._text(question)[characters:]
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor(ids[1:], device=self._head.device)

    def _find_tail(self, probes: list[Tensor], end: int) -> tuple[int, str] | None:
        """How many characters of the template's text come before the tail, and the token before it; None: unknown.

        A special token is never joined with what follows, so what comes after it can be tokenized alone. Where a
        processor rewrites that part of the text, the probes show it.
        """
        mark = self.processor.tokenizer.convert_ids_to_tokens(int(probes[0][end - 1]))
        texts = [self._text(question) for question in PROBES]
        start = texts[0].rfind(mark, 0, _common(*texts))
        if start < 0:
            return None
        self._fixed = start + len(mark), mark
        same = all(
            self._tail(question).equal(ids[end:].to(self._head.device))
            for question, ids in zip(PROBES, probes, strict=True)
        )
        return self._fixed if same else None


def _refuse(generation: Mapping[str, Any]) -> None:
    for name in NOT_HERE:
        if generation.get(name) not in (None, 1, True if name == "use_cache" else None):
            raise ValueError(f"a session cannot generate with {name}: use sharpv.apply and the model's own generate")


def repeated(cache: Cache, times: int, asked: Tensor) -> Cache:
    """A cache of one sample as one of several, for questions ``asked`` ``(times, n)`` bool, False at padding."""
    request, trace = request_on(cache), trace_of(cache)
    assert request is not None
    cache.batch_repeat_interleave(times)
    remember(cache, request.repeated(times))
    if trace is not None:
        trace.visual, trace.valid = (each.repeat_interleave(times, dim=0) for each in (trace.visual, trace.valid))
        for table in (trace.measured, trace.forgotten, trace.withdrawn):
            table.update({layer: each.repeat_interleave(times, dim=0) for layer, each in table.items()})
        trace.question = asked
    return cache


def _end(probes: Sequence[Tensor], special: Sequence[int], placeholder: int) -> int:
    """Where a prompt's question begins: after the last special token before the first difference."""
    differs = _common(*(ids.tolist() for ids in probes))
    last = int((probes[0] == placeholder).nonzero().max())
    marks = torch.isin(probes[0][:differs], torch.tensor(special)).nonzero().flatten()
    return max(last, int(marks[-1]) if len(marks) else 0) + 1


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many entries two sequences begin with alike."""
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _padded(row: Tensor, head: int, width: int) -> Tensor:
    """Zeros between a prompt's head and its question."""
    return torch.cat([row[:head], row.new_zeros(width - len(row)), row[head:]])
