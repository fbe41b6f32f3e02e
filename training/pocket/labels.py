"""Dense labels per token (frame, cell of the 7 x 7 grid), used by the auxiliary losses in training only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sharpv.pocket.drawing import (
    BACKGROUNDS,
    COLOUR_NAMES,
    DOT,
    GRID,
    SHAPES,
    SIZE,
    jittered_colours,
    noise_bank,
    paint,
    textures,
)
from sharpv.pocket.world import DIRECTION_NAMES, Episode, frame_times

CELLS = GRID * GRID
NO_COLOUR = len(COLOUR_NAMES)
SHAPE_NAMES = (*SHAPES, DOT)
NO_SHAPE = len(SHAPE_NAMES)
STILL = len(DIRECTION_NAMES)
IGNORE = -100
APPEARED, CHANGED = 1, 2
SPEED_BINS = (30.0, 72.0)
"""Slow, middle and fast movers, in pixels per whole video."""
_MOVING = 8.0
_OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
_CELL = SIZE / GRID
_AXIS = (np.arange(GRID) + 0.5) * _CELL
CELL_CENTRES = np.stack(np.meshgrid(_AXIS, _AXIS), -1).reshape(CELLS, 2)


def covered(centre: np.ndarray, shape: str, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Which cells an object owns (bool) and how far their centres are from it (pixels), both (..., CELLS)."""
    distance = np.abs(CELL_CENTRES - centre[..., None, :]).max(-1)
    return distance < (8.0 if shape == DOT else 0.75 * radius + 4), distance


@dataclass
class CrowdedFrame:
    """A single frame with many objects, and what each cell shows."""

    pixels: np.ndarray
    colour: np.ndarray
    shape: np.ndarray
    offset: np.ndarray
    background: int


def crowded_frame(rng: np.random.Generator, texture_seed: int) -> CrowdedFrame:
    """Draw 5 to 9 objects, one or two of them small dots, on one background."""
    background = int(rng.integers(len(BACKGROUNDS)))
    bank = textures(texture_seed)[BACKGROUNDS[background]]
    canvas = bank[int(rng.integers(len(bank)))].crop(*rng.integers(0, 80, 2)).copy()
    palette = list(jittered_colours(rng).values())
    colour, shape = np.full(CELLS, NO_COLOUR), np.full(CELLS, NO_SHAPE)
    offset, nearest = np.zeros((CELLS, 2), np.float32), np.full(CELLS, np.inf)
    centres = np.zeros((0, 2))
    for index in range(int(rng.integers(5, 10))):
        kind = NO_SHAPE - 1 if index in (0, 3) else int(rng.integers(len(SHAPES)))
        name = SHAPE_NAMES[kind]
        radius, edge = (5, 8) if name == DOT else (int(rng.integers(9, 12)), 11)
        candidates = rng.uniform(edge, SIZE - edge, (10, 2))
        apart = np.hypot(*(candidates[:, None] - centres).transpose(2, 0, 1)).min(1, initial=np.inf) > 20
        if not apart.any():
            continue
        centre = candidates[apart.argmax()]
        centres = np.vstack([centres, centre])
        tint = int(rng.integers(len(palette)))
        paint(canvas, name, radius, centre, palette[tint])
        inside, distance = covered(centre, name, radius)
        mine = inside & (distance < nearest)
        nearest[mine], colour[mine], shape[mine] = distance[mine], tint, kind
        offset[mine] = (centre - CELL_CENTRES[mine]) / _CELL
    grain = noise_bank()
    canvas = canvas + grain[int(rng.integers(len(grain)))] * rng.uniform(2, 7)
    pixels = np.clip(canvas * rng.uniform(0.9, 1.08), 0, 255).astype(np.uint8)
    return CrowdedFrame(pixels, colour, shape, offset, background)


@dataclass
class MotionLabels:
    """What happens at each token since the frame before; IGNORE where nothing can be said. All (frames * CELLS,)."""

    is_object: np.ndarray
    velocity: np.ndarray
    """Index of the direction on screen, or STILL."""
    novelty: np.ndarray
    """0 nothing new, 1 appeared, 2 changed its colour."""
    speed: np.ndarray
    """0 slow, 1 middle, 2 fast, for movers."""


def motion_labels(episode: Episode, frames: int) -> MotionLabels:
    """Label every token of ``frames`` rendered frames."""
    times = frame_times(frames)
    is_object = np.zeros((frames, CELLS), bool)
    velocity, novelty, speed = (np.full((frames, CELLS), IGNORE) for _ in range(3))
    nearest = np.full((frames, CELLS), np.inf)
    still = STILL if episode.pan is None else DIRECTION_NAMES.index(_OPPOSITE[episode.pan])
    for item in episode.items:
        inside, distance = covered(episode.screen_position(item, times), item.shape, item.radius)
        visible = item.visible(times)
        mine = inside & visible[:, None] & (distance < nearest)
        nearest[mine] = distance[mine]
        is_object |= mine

        rate = np.abs(np.diff(item.position(times), axis=0)).sum(1) * frames
        moving = DIRECTION_NAMES.index(item.direction) if item.direction else still
        seen_twice = visible[1:] & visible[:-1]
        of_frame = np.full((3, frames), IGNORE)
        of_frame[0, 1:] = np.where(seen_twice, np.where(rate > _MOVING, moving, still), IGNORE)
        names = np.array(item.colours(times))
        of_frame[1, 1:] = np.where(names[1:] != names[:-1], CHANGED, (visible[1:] & ~visible[:-1]) * APPEARED)
        of_frame[2, 1:] = np.where(seen_twice & (rate > _MOVING), np.digitize(rate, SPEED_BINS), IGNORE)
        for target, values in zip((velocity, novelty, speed), of_frame, strict=True):
            target[mine] = np.broadcast_to(values[:, None], mine.shape)[mine]
    return MotionLabels(*(array.ravel() for array in (is_object, velocity, novelty, speed)))
