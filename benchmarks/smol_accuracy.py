"""Accuracy of smol: per family beside pocket's, and what the first stage costs beside random tokens.

    python benchmarks/smol_accuracy.py [--videos 300] [--folder runs/smol]

Half of the short questions are asked for a sentence; an answer counts when it is the true one word for word. Finished
rows are kept in FOLDER, so a run that was stopped goes on where it was. Writes docs/results/smol_accuracy.{md,json}.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from pocket_accuracy import interval
from timing import publish

from sharpv import Random, SharpV
from sharpv.comparison import Comparison, Row, prepare

BUDGETS = (None, 0.5, 0.25, 0.12)
DENSE = Row("dense")


def main(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 300,
    model: Annotated[str, typer.Option(help="'smol' or a checkpoint of it.")] = "smol",
    folder: Annotated[Path, typer.Option(help="Where finished rows are kept.")] = Path("runs/smol"),
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    comparison, small = prepare(model, videos, 8, folder), prepare("pocket", videos, 8)
    (dense,), (of_pocket,) = comparison.run([DENSE]), small.run([DENSE])
    lines = [{**comparison.facts(dense, dense), "to_sharpv": None}]
    families = {
        "majority": majority(small),
        "pocket": small.by_family(of_pocket),
        "smol": comparison.by_family(dense),
    }
    for budget in BUDGETS:
        pair = [Row("SharpV", SharpV(), budget), Row("random at SharpV's counts", Random(counts_of=SharpV()), budget)]
        sharpv, chance = comparison.run(pair)
        for outcome in (sharpv, chance):
            to_sharpv = comparison.difference(outcome, sharpv)
            lines.append({**comparison.facts(outcome, dense), "to_sharpv": to_sharpv})
        share = "where the content decides" if budget is None else f"at {100 * budget:g} % kept"
        families[f"smol, SharpV {share}"] = comparison.by_family(sharpv)
    page = [
        "# Smol: what it answers, and what is still answered when tokens go",
        "",
        f"{videos} videos of 8 frames, {len(dense.correct):,} questions of {len(comparison.families)} families, half "
        "of the short ones asked for a sentence; mean exact match over the families, first stage only, with the true "
        "answer fed back, which equals greedy generation. Differences are in points, paired by video, with 95 % "
        "bootstrap intervals. Pocket, which is asked for words alone, has "
        f"{small.accuracy(of_pocket):.3f} dense on the same videos. *Majority*: always the family's commonest answer, "
        "in words. Written by `python benchmarks/smol_accuracy.py`.",
        "",
        "| kept before the LLM | what | accuracy | to dense | to SharpV at this budget |",
        "| --- | --- | --- | --- | --- |",
    ]
    page += [
        f"| {100 * line['kept']:.1f} % | {line['label']} | {line['accuracy']:.3f} | {interval(line, 'difference')} | "
        f"{interval(line, 'to_sharpv')} |"
        for line in lines
    ]
    page += ["", "## By family", "", f"| family | {' | '.join(families)} |", "| --- |" + " --- |" * len(families)]
    for name in comparison.families:
        page.append(f"| {name} | " + " | ".join(f"{column[name]:.3f}" for column in families.values()) + " |")
    publish("smol_accuracy", page, {**comparison.about, "rows": lines, "pocket": families["pocket"]})


def majority(comparison: Comparison) -> dict[str, float]:
    """What always giving each family's commonest answer would score."""
    answers = np.array([question.answer for questions in comparison.evaluation.questions for question in questions])
    of_family = {name: answers[comparison.family == index] for index, name in enumerate(comparison.families)}
    return {name: Counter(own.tolist()).most_common(1)[0][1] / len(own) for name, own in of_family.items()}


if __name__ == "__main__":
    typer.run(main)
