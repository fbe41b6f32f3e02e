"""An episode as some frames show it: what questions and captions are made of."""

from __future__ import annotations

import numpy as np

from .drawing import SIZE
from .world import Episode, Item, frame_times

LOCATIONS = ("top left", "top right", "bottom left", "bottom right")
_MIDDLE = 9.0
"""An object closer than this many pixels to a middle line has no location."""


class Scene:
    """An episode seen at some frames, with the helpers that the question families share."""

    def __init__(self, episode: Episode, rng: np.random.Generator, frames: int) -> None:
        self.episode, self.rng = episode, rng
        self.times = frame_times(frames)
        self.shapes = [item for item in shapes(episode) if item.visible(self.times).any()]
        self.movers = [item for item in self.shapes if item.role == "mover"]
        self.unchanging = [item for item in self.shapes if item.new_colour is None]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, items: list[Item]) -> Item:
        return items[int(self.rng.integers(len(items)))]

    def name(self, item: Item) -> str:
        """A reference to the item; shapes and colours are unique in an episode, so either one will do."""
        full = f"the {item.colour} {item.shape}"
        return str(self.rng.choice([full, f"the {item.colour} object", f"the {item.shape}"], p=(0.5, 0.25, 0.25)))

    def shuffled(self, first: Item, second: Item) -> tuple[Item, Item]:
        return (first, second) if self.chance(0.5) else (second, first)


def shapes(episode: Episode) -> list[Item]:
    """Its objects but the dot."""
    return [item for item in episode.items if item.role != "dot"]


def deed(item: Item) -> str:
    """What the object does, as the caption says it."""
    if item.role == "mover":
        return f"moves {item.direction}"
    if item.new_colour is not None:
        return f"becomes {item.new_colour}"
    if item.blinks:
        return "blinks on and off"
    return {"leaves": "goes away", "arrives": "comes in", "static": "is still"}[item.role]


def location_of(scene: Scene, item: Item) -> str | None:
    """The quarter of the picture that the object stays in; None if it moves or lies near a middle line."""
    x, y = item.start
    clear = min(abs(x - SIZE / 2), abs(y - SIZE / 2)) > _MIDDLE
    if scene.episode.kind != "normal" or item.role != "static" or not clear:
        return None
    return LOCATIONS[2 * int(y > SIZE / 2) + int(x > SIZE / 2)]
