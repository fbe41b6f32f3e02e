"""The pocket world: short synthetic videos in continuous time.

An :class:`Episode` says what happens between the times 0 and 1 (who moves where, who changes colour, whether
the camera pans or the scene cuts). It holds no pixels, so the same episode can be rendered at any number of
frames; frame ``i`` of ``n`` shows the time ``(i + 0.5) / n``.

>>> episode = sample(np.random.default_rng(0))
>>> render(episode, 8).shape
(8, 112, 112, 3)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .drawing import (
    BACKGROUNDS,
    COLOUR_NAMES,
    DOT,
    SHAPES,
    SIZE,
    TEXTURES_PER_BACKGROUND,
    jittered_colours,
    noise_bank,
    paint,
    textures,
)

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
DIRECTION_NAMES = tuple(DIRECTIONS)

# How far along its path a mover is, as knots (time, progress) of a piecewise linear curve.
PROGRESS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "constant": ((0.0, 1.0), (0.0, 1.0)),
    "faster": ((0.0, 0.5, 1.0), (0.0, 0.15, 1.0)),
    "slower": ((0.0, 0.5, 1.0), (0.0, 0.85, 1.0)),
    "early": ((0.0, 0.45, 1.0), (0.0, 1.0, 1.0)),
    "late": ((0.0, 0.55, 1.0), (0.0, 0.0, 1.0)),
}
# Pixels travelled between the times 0 and 1.
DISTANCES = {
    "constant": (40.0, 66.0),
    "faster": (48.0, 68.0),
    "slower": (48.0, 68.0),
    "early": (30.0, 48.0),
    "late": (30.0, 48.0),
}
BLINK_SLOTS = 8
"""A blinking object is visible in one to three of this many equal, non-adjacent slots of time."""

_DOT_RADIUS = 5
_RADII = (9, 10, 11)
_EDGE = 12.0
_GAP = 21.0
_DOT_EDGE = 8.0
_DOT_GAP = 19.0
_COLLISION_TIMES = np.linspace(0.0, 1.0, 9)


@dataclass(frozen=True)
class Item:
    """One object; positions are pixel centres (x, y) in world coordinates, before the camera pan."""

    shape: str
    colour: str
    radius: int
    role: str
    """One of "static", "mover", "leaves" (gone after the cut), "arrives" (there after the cut) and "dot"."""
    start: tuple[float, float] = (0.0, 0.0)
    direction: str | None = None
    distance: float = 0.0
    profile: str = "constant"
    new_colour: str | None = None
    change_time: float = 1.0
    shown: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    """Half-open intervals of time in which the object is visible."""

    @property
    def blinks(self) -> bool:
        """Whether the object is visible in a few separate slots of time only."""
        return self.role == "static" and self.shown != ((0.0, 1.0),)

    def offset(self, times: np.ndarray) -> np.ndarray:
        """Displacement from the start, (times, 2), in pixels."""
        if self.direction is None:
            return np.zeros((len(times), 2))
        return np.outer(np.interp(times, *PROGRESS[self.profile]), DIRECTIONS[self.direction]) * self.distance

    def position(self, times: np.ndarray) -> np.ndarray:
        """World position, (times, 2), in pixels."""
        return np.asarray(self.start) + self.offset(times)

    def visible(self, times: np.ndarray) -> np.ndarray:
        """Boolean (times,)."""
        return np.any([(times >= first) & (times < last) for first, last in self.shown], axis=0)

    def colours(self, times: np.ndarray) -> list[str]:
        """The colour at each time."""
        return [self.new_colour if self.new_colour and t >= self.change_time else self.colour for t in times]


@dataclass(frozen=True)
class Episode:
    """Everything that happens in one video; see :func:`render`."""

    kind: str
    """"normal", "pan" (the camera moves) or "cut" (two scenes)."""
    items: tuple[Item, ...]
    backgrounds: tuple[str, str]
    """The background before and after the cut (equal if there is no cut)."""
    cut: float = 1.0
    pan: str | None = None
    pan_distance: float = 0.0
    texture_seed: int = 0
    render_seed: int = 0

    def shift(self, times: np.ndarray) -> np.ndarray:
        """How far the camera moves everything on screen, (times, 2), in pixels."""
        if self.pan is None:
            return np.zeros((len(times), 2))
        return -np.outer(times, DIRECTIONS[self.pan]) * self.pan_distance

    def screen_position(self, item: Item, times: np.ndarray) -> np.ndarray:
        """Where the item is on screen, (times, 2), in pixels."""
        return item.position(times) + self.shift(times)


def frame_times(frames: int) -> np.ndarray:
    """The times that ``frames`` uniformly sampled frames show."""
    return (np.arange(frames) + 0.5) / frames


# ---------------------------------------------------------------------------------------------------- sampling


def sample(rng: np.random.Generator, texture_seed: int = 0) -> Episode:
    """Draw an episode; ``texture_seed`` picks the bank of background textures."""
    kind = str(rng.choice(["normal", "pan", "cut"], p=(0.66, 0.14, 0.20)))
    shapes = [SHAPES[i] for i in rng.permutation(len(SHAPES))]
    palette = [COLOUR_NAMES[i] for i in rng.permutation(len(COLOUR_NAMES))]
    background = str(rng.choice(BACKGROUNDS))
    episode = Episode(kind, (), (background, background), texture_seed=texture_seed)
    if kind == "pan":
        pan, distance = str(rng.choice(DIRECTION_NAMES)), float(rng.uniform(20, 34))
        episode = replace(episode, pan=pan, pan_distance=distance)
    if kind == "cut":
        other = str(rng.choice([name for name in BACKGROUNDS if name != background]))
        episode = replace(episode, cut=float(rng.uniform(0.35, 0.65)), backgrounds=(background, other))

    items: list[Item] = []
    for item in _draft_items(episode, rng, shapes, palette):
        placed = _place(item, items, episode, rng)
        if placed is not None:
            items.append(placed)
    spare = [name for name in palette if name not in {item.colour for item in items}]
    if kind == "normal":
        _add_events(items, spare, rng)
    if kind != "cut" and rng.random() < 0.6:
        dot = _place(Item(DOT, spare.pop(), _DOT_RADIUS, "dot"), items, episode, rng)
        if dot is not None:
            items.append(dot)
    return replace(episode, items=tuple(items), render_seed=int(rng.integers(2**31)))


def _draft_items(episode: Episode, rng: np.random.Generator, shapes: list[str], palette: list[str]) -> list[Item]:
    """The objects of an episode, not yet placed."""
    shown: dict[str, tuple[tuple[float, float], ...]] = {}
    if episode.kind == "normal":
        movers = int(rng.choice(4, p=(0.1, 0.42, 0.33, 0.15)))
        roles = ["mover"] * movers + ["static"] * min(int(rng.integers(1, 4)), 5 - movers)
    elif episode.kind == "pan":
        roles = ["static"] * int(rng.integers(2, 5))
    else:
        roles = ["leaves"] * int(rng.integers(1, 4)) + ["arrives"] * int(rng.integers(1, 4))
        shown = {"leaves": ((0.0, episode.cut),), "arrives": ((episode.cut, 1.0),)}
    staggered = roles.count("mover") >= 2 and rng.random() < 0.55
    drafts = []
    for index, role in enumerate(roles):
        item = Item(shapes[index], palette[index], int(rng.choice(_RADII)), role)
        if role == "mover":
            profile = str(rng.choice(list(PROGRESS), p=(0.28, 0.2, 0.2, 0.16, 0.16)))
            if staggered and index < 2:
                profile = ("early", "late")[index]
            direction = str(rng.choice(DIRECTION_NAMES))
            item = replace(item, profile=profile, direction=direction, distance=float(rng.uniform(*DISTANCES[profile])))
        drafts.append(replace(item, shown=shown.get(role, item.shown)))
    return drafts


def _place(item: Item, others: list[Item], episode: Episode, rng: np.random.Generator) -> Item | None:
    """Give the item a start from which it stays on screen and meets nobody; None if none was found."""
    edge, gap = (_DOT_EDGE, _DOT_GAP) if item.role == "dot" else (_EDGE, _GAP)
    path, shift = item.offset(_COLLISION_TIMES), episode.shift(_COLLISION_TIMES)
    low = np.maximum(edge - path.min(0), edge - shift.min(0))
    high = np.minimum(SIZE - edge - path.max(0), SIZE - edge - shift.max(0))
    starts = rng.uniform(low, high, (24, 2))
    free = np.ones(len(starts), bool)
    for other in others:
        apart = starts[:, None] + path - other.position(_COLLISION_TIMES)
        free &= np.hypot(apart[..., 0], apart[..., 1]).min(1) > gap
    if not free.any():
        return None
    x, y = starts[free.argmax()]
    return replace(item, start=(float(x), float(y)))


def _add_events(items: list[Item], spare: list[str], rng: np.random.Generator) -> None:
    """Let one static object change its colour and another one blink, each in just under half of the videos."""
    static = [index for index, item in enumerate(items) if item.role == "static"]
    rng.shuffle(static)
    if static and rng.random() < 0.45:
        index = static.pop()
        items[index] = replace(items[index], new_colour=spare.pop(), change_time=float(rng.uniform(0.25, 0.75)))
    if static and rng.random() < 0.5:
        index, count = static.pop(), int(rng.integers(1, 4))
        items[index] = replace(items[index], shown=_blink_intervals(count, rng))


def _blink_intervals(count: int, rng: np.random.Generator) -> tuple[tuple[float, float], ...]:
    """``count`` slots of equal length, no two adjacent."""
    free = np.sort(rng.choice(BLINK_SLOTS - count + 1, count, replace=False))
    slots = free + np.arange(count)
    return tuple((slot / BLINK_SLOTS, (slot + 1) / BLINK_SLOTS) for slot in slots.tolist())


# --------------------------------------------------------------------------------------------------- rendering


def render(episode: Episode, frames: int, noise: float = 1.0) -> np.ndarray:
    """Draw the episode at ``frames`` frames: uint8 (frames, 112, 112, 3). ``noise`` scales the pixel noise."""
    rng = np.random.default_rng([9, episode.render_seed])
    bank, colours = textures(episode.texture_seed), jittered_colours(rng)
    scenes = [bank[name][int(rng.integers(TEXTURES_PER_BACKGROUND))] for name in episode.backgrounds]
    corners = rng.integers(36, 44, (2, 2))
    strength, brightness = noise * rng.uniform(2, 7), rng.uniform(0.9, 1.08)
    times = frame_times(frames)
    shift = episode.shift(times)

    video = np.empty((frames, SIZE, SIZE, 3), np.float32)
    for frame, time in enumerate(times):
        scene = int(time >= episode.cut)
        x, y = (corners[scene] - shift[frame]).round().astype(int).tolist()
        video[frame] = scenes[scene].crop(x, y)
    for item in episode.items:
        centres, names = episode.screen_position(item, times), item.colours(times)
        for frame in np.flatnonzero(item.visible(times)).tolist():
            paint(video[frame], item.shape, item.radius, centres[frame], colours[names[frame]])
    grain = noise_bank()
    for pixels in video:
        pixels += strength * grain[int(rng.integers(len(grain)))]
    return np.clip(video * brightness, 0, 255).astype(np.uint8)


def write_clip(
    episode: Episode, path: str | Path, fps: int = 8, seconds: float = 4.0, scale: int = 3, noise: float = 0.3
) -> None:
    """Write the episode as an H.264 mp4 of ``fps * seconds`` frames, each pixel blown up ``scale`` times."""
    import av

    video = render(episode, round(fps * seconds), noise).repeat(scale, axis=1).repeat(scale, axis=2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "23", "preset": "slow"})
        stream.height, stream.width, stream.pix_fmt = video.shape[1], video.shape[2], "yuv420p"
        for pixels in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
