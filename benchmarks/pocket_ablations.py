"""What SharpV's first stage does as the video or a setting changes, on pocket: one command an ablation.

    python benchmarks/pocket_ablations.py content|frames|resolution|weight|threshold [--videos N]

Each row compares with the dense model on the same videos. Writes docs/results/pocket_ablation_NAME.{md,json,svg}; the
plot needs sharpv[plot].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from timing import RESULTS, publish
from torch.nn.functional import interpolate

from sharpv import Random, SharpV, pocket
from sharpv.comparison import Comparison, Row
from sharpv.plot import check, draw
from sharpv.pocket.evaluate import EvaluationSet, evaluation_set
from sharpv.pocket.packing import pocket_phrasing

ROWS = [
    Row("SharpV, adaptive", SharpV()),
    Row("SharpV, 25 %", SharpV(), 0.25),
    Row("control: random at the adaptive counts", Random(counts_of=SharpV())),
    Row("control: random, 25 %", Random(), 0.25),
]
app = typer.Typer(add_completion=False)
Videos = Annotated[int, typer.Option(help="Videos of each condition.")]
Threads = Annotated[int, typer.Option(help="CPU threads.")]


@dataclass(frozen=True)
class Changed(EvaluationSet):
    """The same questions about videos whose frames were changed."""

    change: Callable[[np.ndarray, int], np.ndarray] = lambda frames, index: frames

    def video(self, index: int) -> np.ndarray:
        return self.change(super().video(index), index)


def changed(evaluation: EvaluationSet, change: Callable[[np.ndarray, int], np.ndarray]) -> Changed:
    return Changed(evaluation.frames, evaluation.episodes, evaluation.questions, change)


def noisy(frames: np.ndarray, index: int) -> np.ndarray:
    """Independent noise in each frame, a standard deviation of 8 of 255."""
    noise = np.random.default_rng([9, index]).normal(0, 8, frames.shape)
    return (frames + noise).clip(0, 255).astype(np.uint8)


def coarse(side: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """A clip of ``side`` x ``side`` pixels, brought to the model's size as a processor does."""

    def change(frames: np.ndarray, index: int) -> np.ndarray:
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        small = interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        large = interpolate(small, size=frames.shape[1:3], mode="bilinear", align_corners=False)
        return large.round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8).numpy()

    return change


def of_kind(evaluation: EvaluationSet, fits: Callable[[Any], bool], videos: int) -> EvaluationSet:
    chosen = [index for index, episode in enumerate(evaluation.episodes) if fits(episode)][:videos]
    return replace(
        evaluation,
        episodes=[evaluation.episodes[index] for index in chosen],
        questions=[evaluation.questions[index] for index in chosen],
    )


@app.command()
def content(videos: Videos = 60, threads: Threads = 2) -> None:
    """Still, one mover, several movers, a camera that pans, a cut, noise in every frame."""
    every = evaluation_set(1000)

    def movers(episode: Any) -> int:
        return sum(item.role == "mover" for item in episode.items) if episode.kind == "normal" else -1

    conditions = {
        "nothing moves": of_kind(every, lambda episode: movers(episode) == 0, videos),
        "one mover": of_kind(every, lambda episode: movers(episode) == 1, videos),
        "two or three movers": of_kind(every, lambda episode: movers(episode) >= 2, videos),
        "the camera pans": of_kind(every, lambda episode: episode.kind == "pan", videos),
        "a cut": of_kind(every, lambda episode: episode.kind == "cut", videos),
        "noise in every frame": changed(evaluation_set(videos), noisy),
    }
    conditioned("content", "content", conditions.items(), threads)


@app.command()
def frames(videos: Videos = 60, threads: Threads = 2) -> None:
    """The same clips in 4 to 128 frames (pocket was trained on 4 to 32)."""
    conditions = (
        (count, evaluation_set(max(videos * 32 // max(count, 32), 1), count)) for count in (4, 8, 16, 32, 64, 128)
    )
    conditioned("frames", "frames a video", conditions, threads)


@app.command()
def resolution(videos: Videos = 60, threads: Threads = 2) -> None:
    """The clip's own resolution, 14 to 112 pixels a side, brought to the 112 that pocket reads."""
    whole = evaluation_set(videos)
    conditions = ((side, changed(whole, coarse(side)) if side < 112 else whole) for side in (14, 28, 56, 84, 112))
    conditioned("resolution", "pixels a side", conditions, threads)


@app.command()
def weight(videos: Videos = 200, threads: Threads = 2) -> None:
    """w of I = T + w S, at 25 % kept and adaptive."""
    rows = {value: SharpV(weight=value) for value in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)}
    settings("weight", "w", {v: [Row("25 %", m, 0.25), Row("adaptive", m)] for v, m in rows.items()}, videos, threads)


@app.command()
def threshold(videos: Videos = 200, threads: Threads = 2) -> None:
    """K of manual mode: every token with an importance above K is kept."""
    values = (0.4, 0.8, 1.2, 1.6, 2.0, 2.4)
    rows = {value: [Row("manual", SharpV(mode="manual", threshold=value))] for value in values}
    settings("threshold", "K", rows, videos, threads)


def conditioned(name: str, x: str, conditions: Any, threads: int) -> None:
    """One line a condition: dense, then what each of ROWS loses to it."""
    check(RESULTS / "plot.svg")
    torch.set_num_threads(threads)
    model = pocket.load()[0]
    lines = [f"| {x} | videos | questions | dense | " + " | ".join(row.label for row in ROWS) + " |"]
    lines.append("| --- |" + " --- |" * (3 + len(ROWS)))
    facts, curves = [], {"dense": [], **{row.label: [] for row in ROWS}}
    for place, (label, evaluation) in enumerate(conditions):
        comparison = Comparison(model, evaluation, pocket_phrasing())
        dense, *others = comparison.run([Row("dense"), *ROWS])
        value = label if isinstance(label, int) else place
        cells = []
        for outcome in (dense, *others):
            facts.append({x: label, **comparison.facts(outcome, dense)})
            curves[outcome.row.label].append((value, comparison.accuracy(outcome)))
            if outcome is not dense:
                cells.append(cell(comparison, outcome, dense))
        count = f"{len(evaluation)} | {len(comparison.video)} | {comparison.accuracy(dense):.3f}"
        lines.append(f"| {label} | {count} | " + " | ".join(cells) + " |")
        Console().print(lines[-1], markup=False, highlight=False, soft_wrap=True)
    write(name, x, lines, facts, curves)


def settings(name: str, x: str, rows: dict[float, list[Row]], videos: int, threads: int) -> None:
    """One line a setting, on the same videos."""
    check(RESULTS / "plot.svg")
    torch.set_num_threads(threads)
    comparison = Comparison(pocket.load()[0], evaluation_set(videos), pocket_phrasing())
    (dense,) = comparison.run([Row("dense")])
    labels = [row.label for row in next(iter(rows.values()))]
    lines = [f"{videos} videos of 8 frames, dense {comparison.accuracy(dense):.3f}.", ""]
    lines += [f"| {x} | " + " | ".join(labels) + " |", "| --- |" + " --- |" * len(labels)]
    facts, curves = [], {label: [] for label in labels}
    for value, some in rows.items():
        outcomes = list(comparison.run(some))
        for outcome in outcomes:
            facts.append({x: value, **comparison.facts(outcome, dense)})
            curves[outcome.row.label].append((value, comparison.accuracy(outcome)))
        lines.append(f"| {value} | " + " | ".join(cell(comparison, outcome, dense) for outcome in outcomes) + " |")
    write(name, x, lines, facts, curves)


def cell(comparison: Comparison, outcome: Any, dense: Any) -> str:
    mean, low, high = comparison.difference(outcome, dense)
    kept, accuracy = 100 * outcome.kept, comparison.accuracy(outcome)
    return f"kept {kept:.1f} %: {accuracy:.3f} ({mean:+.1f} [{low:+.1f}, {high:+.1f}])"


def write(name: str, x: str, lines: list[str], facts: list[dict], curves: dict[str, list]) -> None:
    page = [
        f"# Pocket: {name}",
        "",
        "First stage, mean exact match over the question families that the videos have; in "
        "brackets the difference to the dense model on the same videos in points, with its paired 95 % interval. "
        f"Written by `python benchmarks/pocket_ablations.py {name}`.",
        "",
        *lines,
    ]
    publish(f"pocket_ablation_{name}", page, facts)
    draw(RESULTS / f"pocket_ablation_{name}.svg", curves, x, "mean accuracy", shares=False)


if __name__ == "__main__":
    app()
