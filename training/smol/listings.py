"""Answers in which nearly every word has to be read from the video: what grounds a language model's words first.

A plain question is twenty tokens for one that the video decides. A listing names all objects of a video in random
order, so that each name has to be looked up, and costs four tokens an object. Only training asks for them.
"""

from __future__ import annotations

import numpy as np

from sharpv.pocket.questions import Question
from sharpv.pocket.scene import Scene, deed, location_of
from sharpv.pocket.world import Episode

BY_COLOUR = "Name the objects."
BY_SHAPE = "Name the objects, shape first."
PLACES = "Where is each object?"
DEEDS = "What does each object do?"
FRAMES_FOR_DEEDS = 4
REPEATS = 2


def listings(episode: Episode, rng: np.random.Generator, frames: int) -> list[Question]:
    """The listings that ``frames`` frames of an episode can answer, those of names in two orders each."""
    scene = Scene(episode, rng, frames)
    objects = scene.unchanging
    pairs: list[tuple[str, list[tuple[str, str]]]] = []
    for _ in range(REPEATS):
        pairs.append((BY_COLOUR, [(item.colour, item.shape) for item in objects]))
        pairs.append((BY_SHAPE, [(item.shape, item.colour) for item in objects]))
    name = "colour" if rng.random() < 0.5 else "shape"
    pairs.append((PLACES, [(getattr(i, name), place) for i in objects if (place := location_of(scene, i))]))
    if frames >= FRAMES_FOR_DEEDS:
        pairs.append((DEEDS, [(getattr(item, name), deed(item)) for item in objects]))
    return [
        Question("listing", prompt, ", ".join(" ".join(named[i]) for i in rng.permutation(len(named))), form="listing")
        for prompt, named in pairs
        if named
    ]
