"""What the pocket world is drawn with: colours, shapes, background textures and pixel noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

SIZE = 112
"""Height and width of a rendered frame in pixels."""
GRID = 7
"""The model pools a frame to GRID x GRID tokens."""
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "green": (40, 170, 60),
    "blue": (45, 70, 220),
    "yellow": (235, 215, 50),
    "purple": (150, 50, 190),
    "cyan": (60, 215, 225),
    "orange": (245, 135, 30),
    "white": (248, 248, 248),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
DOT = "dot"
BACKGROUNDS = ("plain", "striped", "checked", "dotted", "cloudy")
COLOUR_NAMES = tuple(COLOURS)
TEXTURES_PER_BACKGROUND = 40
_TEXTURE_SIZE = 192
_NOISE_FRAMES = 300


@dataclass(frozen=True)
class Texture:
    """A background: base colour (3,) plus a brightness pattern (192, 192) of the given amplitude."""

    base: np.ndarray
    pattern: np.ndarray

    def crop(self, x: int, y: int) -> np.ndarray:
        """A frame-sized float32 window (SIZE, SIZE, 3)."""
        return self.base + self.pattern[y : y + SIZE, x : x + SIZE, None]


@lru_cache(maxsize=8)
def textures(seed: int) -> dict[str, list[Texture]]:
    """The bank of background textures drawn from ``seed``."""
    rng = np.random.default_rng([7, seed])
    return {name: [_texture(name, rng) for _ in range(TEXTURES_PER_BACKGROUND)] for name in BACKGROUNDS}


def _texture(name: str, rng: np.random.Generator) -> Texture:
    y, x = np.mgrid[0:_TEXTURE_SIZE, 0:_TEXTURE_SIZE].astype(np.float32)
    base = rng.uniform(85, 150) + rng.uniform(-12, 12, 3)
    amplitude = rng.uniform(14, 24)
    if name == "plain":
        pattern = 0.35 * _smooth(3, rng)
    elif name == "cloudy":
        pattern = 0.9 * _smooth(int(rng.integers(14, 22)), rng)
    elif name == "striped":
        angle, period, phase = rng.uniform(0, np.pi), rng.uniform(9, 14), rng.uniform(0, 6)
        pattern = np.sign(np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period + phase))
    elif name == "checked":
        side = rng.uniform(7, 11)
        pattern = np.where(((x // side + y // side) % 2) == 0, 1.0, -1.0)
    else:
        pitch = rng.uniform(10, 14)
        dx, dy = ((axis + rng.uniform(0, pitch)) % pitch - pitch / 2 for axis in (x, y))
        pattern = np.where(np.hypot(dx, dy) < pitch * 0.27, 1.5, -0.5)
    return Texture(base.astype(np.float32), (amplitude * pattern).astype(np.float32))


def _smooth(cells: int, rng: np.random.Generator) -> np.ndarray:
    """Bilinear interpolation of cells x cells normal values to the texture size."""
    values = rng.normal(size=(cells, cells)).astype(np.float32)
    at = np.linspace(0, cells - 1.001, _TEXTURE_SIZE)
    low, part = at.astype(int), (at - at.astype(int)).astype(np.float32)
    rows = values[low] * (1 - part)[:, None] + values[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


@lru_cache(maxsize=1)
def noise_bank() -> np.ndarray:
    """Frames of standard normal pixel noise, float16."""
    return np.random.default_rng(8).normal(size=(_NOISE_FRAMES, SIZE, SIZE, 3)).astype(np.float16)


@cache
def sprite(shape: str, radius: int) -> np.ndarray:
    """Anti-aliased coverage of a shape, (n, n, 1) in 0..1."""
    n, fine = 2 * radius + 3, 4
    axis = (np.arange(n * fine) + 0.5) / fine - n / 2
    x, y = np.meshgrid(axis, axis)
    distance = np.hypot(x, y)
    inside = {
        "circle": distance < radius,
        "square": (abs(x) < radius * 0.85) & (abs(y) < radius * 0.85),
        "diamond": abs(x) + abs(y) < radius * 1.15,
        "triangle": (y < radius * 0.8) & (y > -radius) & (abs(x) < (y + radius) * 0.58),
        "cross": ((abs(x) < radius * 0.33) & (abs(y) < radius)) | ((abs(y) < radius * 0.33) & (abs(x) < radius)),
        "ring": (distance < radius) & (distance > radius * 0.55),
        DOT: distance < 4.2,
    }[shape]
    return inside.reshape(n, fine, n, fine).mean((1, 3)).astype(np.float32)[..., None]


def paint(canvas: np.ndarray, shape: str, radius: int, centre: np.ndarray, colour: np.ndarray) -> None:
    """Blend a shape into a float canvas (SIZE, SIZE, 3) in place, clipped at the border."""
    mask = sprite(shape, radius)
    n = len(mask)
    x, y = (round(float(value) - n / 2) for value in centre)
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + n, SIZE), min(y + n, SIZE)
    if left < right and top < bottom:
        part = canvas[top:bottom, left:right]
        part += mask[top - y : bottom - y, left - x : right - x] * (colour - part)


def jittered_colours(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The palette with a small random tint, the same for a whole video."""
    return {
        name: np.array(rgb, np.float32) + rng.uniform(-14, 14, 3).astype(np.float32) for name, rgb in COLOURS.items()
    }
