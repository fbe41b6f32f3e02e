"""Accuracy of the first stage on pocket's evaluation set: what is kept against what is still answered.

    python benchmarks/pocket_accuracy.py [--videos 1000] [--frames 8] [--model DIR]

Every row scores the same questions on the same videos; differences to dense and between rows are paired by video, with
95 % bootstrap intervals over videos. Writes docs/results/pocket_accuracy.{md,json} and prints the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor

from sharpv import Budget, Random, SharpV, Uniform, pocket
from sharpv.importance import spatial_importance
from sharpv.methods import Method, Scores
from sharpv.pocket.evaluate import Record, evaluation_set, extract_features, score, summarise

RESULTS = Path(__file__).parents[1] / "docs" / "results"
BUDGETS = (None, 0.5, 0.25, 0.12)
RESAMPLES = 2000


@dataclass(frozen=True)
class EqualFrames(SharpV):
    """SharpV's ranking within a frame, the same number of tokens from every frame."""

    name: ClassVar[str] = "equal-frames"

    def score(self, features: Tensor) -> Scores:
        tokens = super().score(features).tokens
        return Scores(tokens, torch.ones(len(tokens)))


@dataclass(frozen=True)
class SpatialRanking(SharpV):
    """SharpV's counts, ranked by S alone."""

    name: ClassVar[str] = "spatial-ranking"

    def score(self, features: Tensor) -> Scores:
        return Scores(spatial_importance(features), super().score(features).demand)


@dataclass(frozen=True)
class Row:
    """One configuration; ``budget`` None means that the content decides (or the mean of what it decided)."""

    label: str
    method: Method
    budget: float | None
    positions: str = "original"


def rows(adaptive_mean: float) -> Iterator[Row]:
    for budget in BUDGETS:
        fixed = budget or adaptive_mean
        yield Row("SharpV", SharpV(), budget)
        yield Row("SharpV, packed positions", SharpV(), budget, "packed")
        yield Row("random at SharpV's counts", Random(counts_of=SharpV()), budget)
        yield Row("SharpV's ranking, equal counts a frame", EqualFrames(), fixed)
        yield Row("T only (w = 0), SharpV's counts", SharpV(weight=0.0), budget)
        yield Row("S only, SharpV's counts", SpatialRanking(), budget)
        yield Row("random, equal counts a frame", Random(), fixed)
        yield Row("uniform grid", Uniform(), fixed)


def masks(method: Method, features: Tensor, budget: float | None) -> Tensor:
    """Keep masks of all videos, (videos, T, N)."""
    return torch.stack([method.select(video, Budget(retention=budget)).keep for video in features])


class Table:
    """Correct answers by video and family, for paired comparisons of mean accuracy over families."""

    def __init__(self, videos: int, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        self.weights = draw.multinomial(videos, np.full(videos, 1 / videos), size=RESAMPLES).astype(np.float64)
        self.videos = videos

    def means(self, records: list[Record]) -> np.ndarray:
        """Mean accuracy over families: of all videos, then of each resample."""
        names = sorted({_family(record) for record in records})
        right, asked = np.zeros((2, self.videos, len(names)))
        for record in records:
            right[record.video, names.index(_family(record))] += record.correct
            asked[record.video, names.index(_family(record))] += 1
        weights = np.vstack([np.ones(self.videos), self.weights])
        return ((weights @ right) / (weights @ asked)).mean(axis=1)


def _family(record: Record) -> str:
    return "multiple_choice" if record.form == "choice" else record.family


def interval(difference: np.ndarray) -> str:
    """A paired difference in points with its 95 % interval."""
    low, high = np.percentile(difference[1:], [2.5, 97.5])
    return f"{100 * difference[0]:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def main(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 1000,
    frames: Annotated[int, typer.Option(help="Frames a video.")] = 8,
    model: Annotated[str | None, typer.Option(help="Another checkpoint of pocket.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    console = Console()
    network, _ = pocket.load(directory=model)
    evaluation = evaluation_set(videos, frames)
    features = extract_features(network, evaluation)
    table = Table(videos)

    dense = score(network, evaluation, features)
    base = table.means(dense)
    adaptive = masks(SharpV(), features, None).float().mean().item()
    lines = [{"label": "dense", "budget": None, "kept": 1.0, "accuracy": base[0], "to_dense": "", "to_sharpv": ""}]
    families = {"dense": {name: result.accuracy for name, result in summarise(dense).families.items()}}
    reference: np.ndarray = base
    for row in track(list(rows(adaptive)), "scoring", console=console, disable=not console.is_terminal):
        keep = masks(row.method, features, row.budget)
        records = score(network, evaluation, features, keep, row.positions)
        means = table.means(records)
        if row.label == "SharpV":
            reference = means
            key = "adaptive" if row.budget is None else f"{row.budget:.0%} kept"
            families[f"SharpV {key}"] = {n: r.accuracy for n, r in summarise(records).families.items()}
        lines.append(
            {
                "label": row.label,
                "budget": row.budget,
                "kept": keep.float().mean().item(),
                "accuracy": means[0],
                "to_dense": interval(means - base),
                "to_sharpv": "" if row.label == "SharpV" else interval(means - reference),
            }
        )
        if not console.is_terminal:
            console.print(f"{row.label}: {means[0]:.3f}", highlight=False)
    questions = sum(map(len, evaluation.questions))
    text = report(lines, families, f"{videos:,} videos of {frames} frames, {questions:,} questions", adaptive)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "pocket_accuracy.md").write_text(text)
    facts = {"videos": videos, "frames": frames, "questions": questions, "rows": lines, "families": families}
    (RESULTS / "pocket_accuracy.json").write_text(json.dumps(facts, indent=1) + "\n")
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def report(lines: list[dict], families: dict[str, dict[str, float]], what: str, adaptive: float) -> str:
    """The Markdown page."""
    page = [
        "# Pocket: what is kept, what is still answered",
        "",
        f"{what}; mean exact-match accuracy over {len(families['dense'])} question families; teacher-forced scoring, "
        "which equals greedy generation. First stage only. Differences are in points, paired by video, with 95 % "
        f"bootstrap intervals. SharpV adaptive keeps {adaptive:.1%} here, unprompted; rows of the first block that "
        "need a number get that one. Written by `python benchmarks/pocket_accuracy.py`.",
        "",
        "| kept before the LLM | what | accuracy | to dense | to SharpV at this budget |",
        "| --- | --- | --- | --- | --- |",
    ]
    page += [
        f"| {line['kept']:.1%} | {line['label']} | {line['accuracy']:.3f} | {line['to_dense']} | {line['to_sharpv']} |"
        for line in lines
    ]
    page += ["", "## By family", "", "| family | " + " | ".join(families) + " |", "| --- |" + " --- |" * len(families)]
    for name in families["dense"]:
        page.append(f"| {name} | " + " | ".join(f"{column[name]:.3f}" for column in families.values()) + " |")
    return "\n".join(page).replace("%", " %").replace("  %", " %") + "\n"


if __name__ == "__main__":
    typer.run(main)
