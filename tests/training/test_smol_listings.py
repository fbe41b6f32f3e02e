"""Listings say of every object what is true of it, in an order that cannot be guessed."""

from __future__ import annotations

import numpy as np

from sharpv.pocket.world import sample
from training.smol.listings import BY_COLOUR, BY_SHAPE, DEEDS, FRAMES_FOR_DEEDS, PLACES, listings


def test_listings_are_true_and_shuffled():
    orders = set()
    for seed in range(20):
        episode = sample(np.random.default_rng(seed))
        items = [item for item in episode.items if item.role != "dot"]
        colours, shapes = ({getattr(i, n): i for i in items} for n in ("colour", "shape"))
        made = listings(episode, np.random.default_rng(seed), FRAMES_FOR_DEEDS)
        for question in made:
            for entry in question.answer.split(", "):
                name, said = entry.split(" ", 1)
                item = colours.get(name) or shapes[name]
                x, y = item.start
                true = {
                    BY_COLOUR: item.shape,
                    BY_SHAPE: item.colour,
                    PLACES: f"{'bottom' if y > 56 else 'top'} {'right' if x > 56 else 'left'}",
                    DEEDS: said,  # as the caption says it, which has a test of its own
                }
                assert said == true[question.prompt]
        first, second = (q.answer for q in made if q.prompt == BY_COLOUR)
        assert sorted(first.split(", ")) == sorted(second.split(", "))
        orders.add(first == second)
    assert False in orders


def test_what_objects_do_is_not_asked_of_fewer_frames():
    episode = sample(np.random.default_rng(3))
    prompts = {question.prompt for question in listings(episode, np.random.default_rng(0), FRAMES_FOR_DEEDS - 1)}
    assert BY_COLOUR in prompts
    assert DEEDS not in prompts
