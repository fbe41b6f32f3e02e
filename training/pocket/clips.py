"""The demo clips of the package: ``python -m training.pocket.clips`` writes them and their questions again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from pathlib import Path

import numpy as np

from sharpv.pocket.questions import SPEEDS, ask
from sharpv.pocket.world import Episode, sample, write_clip

CLIP_SEED, CLIP_TEXTURES = 31, 779
FRAMES = 8
"""The questions of a clip are those that this many of its frames answer."""


def _is_mover(episode: Episode) -> bool:
    """One object moves at a speed worth asking about, another changes its colour, and there is a dot."""
    movers = [item for item in episode.items if item.role == "mover"]
    changes = any(item.new_colour for item in episode.items)
    dots = any(item.role == "dot" for item in episode.items)
    return len(movers) == 1 and movers[0].profile in SPEEDS and changes and dots


def _is_cut(episode: Episode) -> bool:
    """Two scenes with two objects each."""
    return [item.role for item in episode.items] == ["leaves"] * 2 + ["arrives"] * 2


def _is_static(episode: Episode) -> bool:
    """Nothing moves; one object blinks twice."""
    still = all(item.role in ("static", "dot") and not item.new_colour for item in episode.items)
    return episode.kind == "normal" and still and any(len(item.shown) == 2 for item in episode.items)


CLIPS: dict[str, Callable[[Episode], bool]] = {"mover": _is_mover, "cut": _is_cut, "static": _is_static}


def write_demo_clips(directory: Path) -> None:
    """Write, for each kind of clip, the first episode of its kind as mp4, with its questions as json."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, fits in CLIPS.items():
        for number in count():
            rng = np.random.default_rng([CLIP_SEED, number])
            episode = sample(rng, CLIP_TEXTURES)
            if fits(episode):
                break
        path = directory / f"{name}.mp4"
        write_clip(episode, path)
        questions = [asdict(question) for question in ask(episode, rng, FRAMES)]
        facts = {"clip": path.name, "frames": FRAMES, "kind": episode.kind, "questions": questions}
        path.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    write_demo_clips(Path(__file__).parent / "clips")
