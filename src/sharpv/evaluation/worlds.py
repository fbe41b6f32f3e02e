"""Who knows pocket's world, and how it is asked there: a model is known by its processor's vocabulary.

A distribution names its :class:`World` in the entry-point group ``sharpv.worlds``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Any

from ..pocket.questions import Question
from ..pocket.tokens import build_tokenizer
from .packing import Phrasing, pocket_phrasing
from .scoring import EvaluationSet

GROUP = "sharpv.worlds"


@dataclass(frozen=True)
class World:
    """A model that knows pocket's world.

    Attributes:
        vocabulary: of its tokenizer.
        phrasing: how a question is put to it.
        sentence: a question asked for an answer in a sentence; None where the model speaks in words, or the question
            has none.
    """

    vocabulary: Callable[[], dict[str, int]]
    phrasing: Callable[[], Phrasing]
    sentence: Callable[[Question], Question | None]

    def asked(self, evaluation: EvaluationSet) -> EvaluationSet:
        """The same videos and questions, every second short question asked for a sentence."""
        questions = [
            [(self.sentence(question) if index % 2 else None) or question for index, question in enumerate(of_video)]
            for of_video in evaluation.questions
        ]
        return replace(evaluation, questions=questions)


POCKET = World(lambda: build_tokenizer().get_vocab(), pocket_phrasing, lambda question: None)


def of(processor: Any) -> World | None:
    """The world of a model's processor, or None."""
    vocabulary = processor.tokenizer.get_vocab()
    known = [POCKET, *(entry.load() for entry in entry_points(group=GROUP))]
    return next((world for world in known if world.vocabulary() == vocabulary), None)
