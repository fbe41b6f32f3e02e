"""A pocket model small enough for tests."""

from __future__ import annotations

from sharpv.pocket.model import PocketSize

TINY = PocketSize(
    vision_hidden=32,
    vision_layers=2,
    vision_heads=2,
    vision_mlp=32,
    text_hidden=32,
    text_layers=2,
    text_heads=2,
    text_mlp=32,
)
