"""What is asked about the training videos of each stage, and how much an answer counts."""

from __future__ import annotations

import numpy as np

from sharpv.pocket.questions import Question, ask, multiple_choice
from sharpv.pocket.world import Episode
from sharpv_smol.sentences import in_a_sentence, told

from ..pocket.text_stage import Diet, VideoBuffer
from .listings import listings


class ListingBuffer(VideoBuffer):
    """Pocket's buffer with listings beside the questions."""

    def questions(self, episode: Episode, rng: np.random.Generator, frames: int) -> list[Question]:
        return [*listings(episode, rng, frames), *ask(episode, rng, frames, 1)]


class SentenceBuffer(VideoBuffer):
    """Listings and pocket's questions, half of whose short ones are asked for a sentence.

    Some multiple choices come with their answer: that a letter stands for what follows it is learned by reading first.
    """

    def questions(self, episode: Episode, rng: np.random.Generator, frames: int) -> list[Question]:
        asked = ask(episode, rng, frames, 3)
        closed = [known for question in asked if question.options and (known := told(question))]
        given = [multiple_choice(closed[i], rng) for i in rng.permutation(len(closed))[:2]]
        asked = [(in_a_sentence(question) if rng.random() < 0.5 else None) or question for question in asked]
        return [*listings(episode, rng, frames), *asked, *given]


SPEAKING_DIET = Diet(
    use={
        "listing": 0.1,
        "sentence": 0.4,
        "scene": 0.2,
        "transition": 0.3,
        "small_dot": 0.3,
        "existence": 0.5,
        "attribute": 0.3,
        "caption": 0.6,
        "choice": 0.8,
    },
    weight={
        "listing": 0.4,
        "sentence": 1.5,
        "choice": 3.0,
        "camera": 12.0,
        "direction": 4.0,
        "speed": 8.0,
        "order": 4.0,
        "appearance_count": 8.0,
        "moving_count": 8.0,
        "moving_attribute": 4.0,
        "location": 4.0,
        "existence": 3.0,
        "motion_caption": 2.0,
        "attribute": 2.0,
        "caption": 4.0,
    },
)
"""Once objects have their names: few listings. With all of them the short answers about motion were one part in
thirteen of the loss, and motion was not learned."""
