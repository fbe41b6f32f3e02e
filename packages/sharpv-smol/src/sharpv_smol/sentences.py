"""Pocket's short answers as sentences: what a language model that can speak is asked for."""

from __future__ import annotations

import re
from dataclasses import replace

from sharpv.evaluation.worlds import World
from sharpv.pocket.questions import Question

from .language import load_tokenizer, phrasing

REQUEST = "Answer in a sentence."
# (a short question's prompt, its answer) -> the sentence; groups of the first pattern fill the second
_FORMS = (
    (r"What colour is the (.+)\?", "The {0} is {answer}."),
    (r"What shape is the (.+)\?", "The {0} is a {answer}."),
    (r"Which direction does (.+) move\?", "{0} moves {answer}."),
    (r"How does the camera move\?", "The camera moves {answer}."),
    (r"What colour does the (.+) become\?", "The {0} becomes {answer}."),
    (r"Where is (.+)\?", "{0} is in the {answer}."),
    (r"How many objects (move)\?", "{answer} objects {0}."),
    (r"How many times does (.+) appear\?", "{0} appears {answer} times."),
    (r"What is the background(.*)\?", "The background{0} is {answer}."),
    (r"How does the speed of (.+) change\?", "{0} becomes {answer}."),
    (r"Which object (\w+) first, .+\?", "The {answer} object {0} first."),
    (r"Is there (.+)\?", "{answer}, there is {0}."),
)
_MENDED = (
    ("The camera moves still.", "The camera is still."),
    ("becomes constant.", "keeps its speed."),
    ("1 objects move.", "1 object moves."),
    ("appears 1 times.", "appears once."),
    ("no, there is a", "no, there is no"),
    ("there is non ", "there is no "),
)


def in_a_sentence(question: Question) -> Question | None:
    """The same question with a sentence as its answer; None for forms that have no such sentence.

    >>> in_a_sentence(Question("direction", "Which direction does the red ring move?", "left")).answer
    'The red ring moves left.'
    """
    if question.form != "short":
        return None
    for pattern, form in _FORMS:
        found = re.fullmatch(pattern, question.prompt)
        if found:
            answer = form.format(*found.groups(), answer=question.answer)
            for wrong, right in _MENDED:
                answer = answer.replace(wrong, right)
            answer = answer[0].upper() + answer[1:]
            return replace(
                question, prompt=f"{question.prompt} {REQUEST}", answer=answer, form="sentence", options=None
            )
    return None


def told(question: Question) -> Question | None:
    """The same question after its answer in a sentence, which makes it one of reading; None as above.

    >>> told(Question("direction", "Which direction does the red ring move?", "left")).prompt
    'The red ring moves left. Which direction does the red ring move?'
    """
    said = in_a_sentence(question)
    return said and replace(question, prompt=f"{said.answer} {question.prompt}")


WORLD = World(lambda: load_tokenizer().get_vocab(), phrasing, in_a_sentence)
"""How ``sharpv eval`` asks this model."""
