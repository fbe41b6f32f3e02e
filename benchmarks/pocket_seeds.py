"""What training gave: every seed's accuracy by family on the fixed evaluation set, and by number of frames.

    python benchmarks/pocket_seeds.py RUN [RUN ...] [--videos 1000]

RUN is what ``python -m sharpv.pocket.train RUN --seed N`` wrote; the first one is the shipped model, columns bear the
folders' names. Writes docs/results/pocket_training.{md,json} and the runs' logs beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from timing import RESULTS, publish
from transformers import LlavaOnevisionForConditionalGeneration

from sharpv import pocket
from sharpv.pocket.evaluate import FamilyResult, Summary, evaluation_set, extract_features, score, summarise

FRAMES = (4, 8, 16, 32)
ABOVE_MAJORITY = 0.20


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of training runs, the shipped one first.")],
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 1000,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    console = Console()
    seeds: dict[str, dict[str, FamilyResult]] = {}
    few = max(videos // 4, 1)
    for run in runs:
        model, _ = pocket.load(directory=run / "model")
        summary = seen(model, videos)
        seeds[run.name] = summary.families
        console.print(f"{run.name}: {summary.mean:.3f}", highlight=False)
        if run == runs[0]:
            blind = seen(model, few, blind=True).mean
            by_frames = {frames: seen(model, few, frames).mean for frames in FRAMES}
        (RESULTS / f"pocket_training_{run.name}.jsonl").write_text((run / "log.jsonl").read_text())
    results = {run: {name: vars(result) for name, result in families.items()} for run, families in seeds.items()}
    facts = {"videos": videos, "frames": by_frames, "seeds": results}
    publish("pocket_training", page(seeds, by_frames, videos, few, blind), facts)


def seen(model: LlavaOnevisionForConditionalGeneration, videos: int, frames: int = 8, blind: bool = False) -> Summary:
    """What the model answers of the first videos; blind: with its features zeroed."""
    evaluation = evaluation_set(videos, frames)
    features = extract_features(model, evaluation)
    return summarise(score(model, evaluation, features * 0 if blind else features))


def page(
    seeds: dict[str, dict[str, FamilyResult]], by_frames: dict[int, float], videos: int, few: int, blind: float
) -> list[str]:
    """The Markdown page, line by line."""
    means = [np.mean([result.accuracy for result in families.values()]) for families in seeds.values()]
    shipped, first = next(iter(seeds.items()))
    weak = [n for n, r in first.items() if r.accuracy < r.majority + ABOVE_MAJORITY]
    lines = [
        "# Pocket: training",
        "",
        f"Exact-match accuracy on the fixed evaluation set: {videos:,} videos of 8 frames, "
        f"{sum(r.questions for r in first.values()):,} questions, textures that no training run has seen. "
        f"{shipped} is the shipped model, chosen on other videos. *Majority*: always the family's commonest answer. "
        "Written by `python benchmarks/pocket_seeds.py`; the logs of the runs lie beside this page.",
        "",
        "| family | questions | " + " | ".join(seeds) + " | majority |",
        "| --- | --- |" + " --- |" * (len(seeds) + 1),
    ]
    for name, result in first.items():
        cells = " | ".join(f"{families[name].accuracy:.3f}" for families in seeds.values())
        lines.append(f"| {name} | {result.questions} | {cells} | {result.majority:.3f} |")
    total = " | ".join(f"{mean:.3f}" for mean in means)
    majority = np.mean([result.majority for result in first.values()])
    lines.append(f"| **mean of {len(first)} families** | | {total} | {majority:.3f} |")
    lines += [
        "",
        f"Without sight (features zeroed, first {few} videos) the mean of {shipped} is {blind:.3f}. "
        + (f"Less than 20 points above the majority answer, so failed: {', '.join(weak)}." if weak else "Every family "
           "is at least 20 points above its majority answer."),
        "",
        f"| frames a video, first {few} videos, {shipped} | " + " | ".join(map(str, by_frames)) + " |",
        "| --- |" + " --- |" * len(by_frames),
        "| mean accuracy | " + " | ".join(f"{mean:.3f}" for mean in by_frames.values()) + " |",
    ]  # fmt: skip
    return lines


if __name__ == "__main__":
    typer.run(main)
