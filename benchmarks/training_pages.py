"""What training gave: pages from the runs' folders and logs.

    python benchmarks/training_pages.py pocket RUN [RUN ...] [--videos 1000]
    python benchmarks/training_pages.py smol FIRST/log.jsonl SECOND/log.jsonl

Pocket: every seed's accuracy by family on the fixed evaluation set, and by number of frames; RUN is what ``python -m
training.pocket.train RUN --seed N`` wrote, the first one is the shipped model. Smol: its monitor, its loss and what
became of the language model's own replies; one log for each run behind the weights that ship, in their order, each
later run started from the deltas of the one before. Pages and logs go to docs/results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from common import RESULTS, publish, table
from transformers import LlavaOnevisionForConditionalGeneration

from sharpv import pocket as pocket_model
from sharpv.evaluation.scoring import FamilyResult, Summary, evaluation_set, extract_features, score, summarise

app = typer.Typer(add_completion=False)
Out = Annotated[Path, typer.Option(help="Where pages go.")]


@app.command()
def pocket(
    runs: Annotated[list[Path], typer.Argument(help="Folders of training runs, the shipped one first.")],
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 1000,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    out: Out = RESULTS,
) -> None:
    """Every seed by family."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    seeds: dict[str, dict[str, FamilyResult]] = {}
    few = max(videos // 4, 1)
    for run in runs:
        model, _ = pocket_model.load(directory=run / "model")
        seeds[run.name] = seen(model, videos).families
        if run == runs[0]:
            blind = seen(model, few, blind=True).mean
            by_frames = {frames: seen(model, few, frames).mean for frames in (4, 8, 16, 32)}
        (out / f"pocket_training_{run.name}.jsonl").write_text((run / "log.jsonl").read_text())
    shipped, first = next(iter(seeds.items()))
    weak = [name for name, result in first.items() if result.accuracy < result.majority + 0.20]
    rows: list[list[Any]] = [
        [name, result.questions, *(f"{of[name].accuracy:.3f}" for of in seeds.values()), f"{result.majority:.3f}"]
        for name, result in first.items()
    ]
    means = [f"{np.mean([result.accuracy for result in families.values()]):.3f}" for families in seeds.values()]
    majority = np.mean([result.majority for result in first.values()])
    rows.append([f"**mean of {len(first)} families**", "", *means, f"{majority:.3f}"])
    verdict = (
        f"Less than 20 points above the majority answer, so failed: {', '.join(weak)}."
        if weak
        else "Every family is at least 20 points above its majority answer."
    )
    lines = [
        "# Pocket: training",
        "",
        f"Exact-match accuracy on the fixed evaluation set: {videos:,} videos of 8 frames, "
        f"{sum(result.questions for result in first.values()):,} questions, textures that no training run has seen. "
        f"{shipped} is the shipped model, chosen on other videos. *Majority*: always the family's commonest answer. "
        "Written by `python benchmarks/training_pages.py pocket`; the logs of the runs lie beside this page.",
        "",
        *table(["family", "questions", *seeds, "majority"], rows),
        "",
        f"Without sight (features zeroed, first {few} videos) the mean of {shipped} is {blind:.3f}. {verdict}",
        "",
        *table(
            [f"frames a video, first {few} videos, {shipped}", *by_frames],
            [["mean accuracy", *(f"{mean:.3f}" for mean in by_frames.values())]],
        ),
    ]
    results = {run: {name: vars(result) for name, result in families.items()} for run, families in seeds.items()}
    publish(out, "pocket_training", lines, {"videos": videos, "frames": by_frames, "seeds": results})


def seen(model: LlavaOnevisionForConditionalGeneration, videos: int, frames: int = 8, blind: bool = False) -> Summary:
    """What the model answers of the first videos; blind: with its features zeroed."""
    evaluation = evaluation_set(videos, frames)
    features = extract_features(model, evaluation)
    return summarise(score(model, evaluation, features * 0 if blind else features))


NO_FAMILY = {"monitor", "mean", "reply_loss", "seconds", "cpu_seconds"}
EVERY = 100
"""Steps to a row of the table."""
COLUMNS = {"frames": 0, "kept": 0, "loss": 3, "token_accuracy": 3, "motion_accuracy": 3, "drift": 3}
"""What is in a row, and to how many digits."""


@app.command()
def smol(
    logs: Annotated[list[Path], typer.Argument(help="log.jsonl of each run.", exists=True)], out: Out = RESULTS
) -> None:
    """The runs behind the weights that ship."""
    from training.smol.prompts import EVALUATION
    from training.smol.train import SmolStage

    texts = [log.read_text() for log in logs]
    runs = [[json.loads(line) for line in text.splitlines()] for text in texts]
    before = next(record["reply_loss_before"] for record in runs[0] if "reply_loss_before" in record)
    monitors = [(run, record) for run, records in enumerate(runs, 1) for record in records if "monitor" in record]
    families = [name for name in monitors[-1][1] if name not in NO_FAMILY]
    after = monitors[-1][1]["reply_loss"]
    watched = []
    for run, record in monitors:
        earlier = runs[run - 1][: runs[run - 1].index(record)]
        logged = [each["stage"] for each in earlier if "stage" in each]  # none yet in a run of a step or two
        stage = "set apart" if "apart" in earlier[-1] else (logged or [SmolStage.name])[-1]
        figures = [
            f"{record['reply_loss']:.3f}",
            f"{record['mean']:.3f}",
            *(f"{record[name]:.2f}" for name in families),
        ]
        watched.append([run, f"{stage} {record['monitor']}", *figures])
    head = ["run", "stage", "steps", "frames", "tokens kept", "loss", "token accuracy", "motion accuracy", "drift"]
    lines = [
        "# Smol: training",
        "",
        "On two CPU cores; the logs lie beside this page, and each run but the first started from the deltas of the "
        "one before. Loss is that of the answers' tokens in training as the run weighed them, token accuracy the share "
        "of them that is the likeliest; drift is what the replies to prompts without a video moved in training, KL in "
        f"nats; means of {EVERY} steps. *Set apart*: as a run ends. Written by `python benchmarks/training_pages.py "
        "smol`.",
        "",
        *table(head, [[run, *row] for run, records in enumerate(runs, 1) for row in steps_of(records)]),
        "",
        f"Loss on SmolLM2's own replies to {len(EVALUATION)} prompts that are not trained on: {before:.3f} before, "
        f"{after:.3f} after ({100 * (after / before - 1):+.0f} %).",
        "",
        "Accuracy on videos that are in neither the training nor the evaluation set, all tokens kept:",
        "",
        *table(["run", "step", "replies' loss", "mean", *families], watched),
    ]
    out.mkdir(parents=True, exist_ok=True)
    (out / "smol_training.md").write_text("\n".join(lines) + "\n")
    for run, text in enumerate(texts, 1):
        (out / f"smol_training_{run}.jsonl").write_text(text)


def steps_of(log: list[dict[str, Any]]) -> list[list[str]]:
    """One row every so many steps of a stage."""
    rows = []
    steps = [record for record in log if "stage" in record]
    for stage in dict.fromkeys(record["stage"] for record in steps):
        own = [record for record in steps if record["stage"] == stage]
        for start in range(0, own[-1]["step"], EVERY):
            part = [record for record in own if start < record["step"] <= start + EVERY]
            means = [
                f"{np.nanmean([record.get(name, np.nan) for record in part]):.{digits}f}"
                for name, digits in COLUMNS.items()
            ]
            rows.append([stage, f"{start + 1} to {part[-1]['step']}", *means])
    return rows


if __name__ == "__main__":
    app()
