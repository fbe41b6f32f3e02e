"""Accuracy of smol: per family beside pocket's, and what the first stage costs beside random tokens.

    python benchmarks/smol_accuracy.py [--videos 300] [--pruned 300] [--folder runs/smol]

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
    pruned: Annotated[int, typer.Option(help="The first n on which budgets are compared: nine times the work.")] = 300,
    model: Annotated[str, typer.Option(help="'smol' or a checkpoint of it.")] = "smol",
    folder: Annotated[Path, typer.Option(help="Where finished rows are kept.")] = Path("runs/smol"),
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    whole, small = prepare(model, videos, 8, folder), prepare("pocket", videos, 8)
    (dense,), (of_pocket,) = whole.run([DENSE]), small.run([DENSE])
    families = {
        "majority": majority(small),
        "pocket": small.by_family(of_pocket),
        "smol": whole.by_family(dense),
    }
    part = whole if pruned == videos else prepare(model, pruned, 8, folder / "pruned")
    (of_part,) = part.run([DENSE])
    lines = [{**part.facts(of_part, of_part), "to_sharpv": None}]
    of_first = f"smol, first {pruned}"
    families[of_first] = part.by_family(of_part)
    for budget in BUDGETS:
        pair = [Row("SharpV", SharpV(), budget), Row("random at SharpV's counts", Random(counts_of=SharpV()), budget)]
        sharpv, chance = part.run(pair)
        lines += [
            {**part.facts(outcome, of_part), "to_sharpv": part.difference(outcome, sharpv)}
            for outcome in (sharpv, chance)
        ]
        share = "where the content decides" if budget is None else f"at {100 * budget:g} % kept"
        families[f"{of_first}, SharpV {share}"] = part.by_family(sharpv)
    page = [
        "# Smol: what it answers, and what is still answered when tokens go",
        "",
        f"{videos} videos of 8 frames, {len(dense.correct):,} questions of {len(whole.families)} families, half of the "
        "short ones asked for a sentence; mean exact match over the families, first stage only, with the true answer "
        "fed back, which equals greedy generation. Written by "
        f"`python benchmarks/smol_accuracy.py --videos {videos} --pruned {pruned}`.",
        "",
        f"Dense **{whole.accuracy(dense):.3f}**; pocket, which is asked for words alone, has "
        f"{small.accuracy(of_pocket):.3f} on the same videos.",
        "",
        f"The first {pruned} of them, {len(of_part.correct):,} questions; differences in points, paired by video, with "
        "95 % bootstrap intervals:",
        "",
        "| kept before the LLM | what | accuracy | to dense | to SharpV at this budget |",
        "| --- | --- | --- | --- | --- |",
    ]
    page += [
        f"| {100 * line['kept']:.1f} % | {line['label']} | {line['accuracy']:.3f} | {interval(line, 'difference')} | "
        f"{interval(line, 'to_sharpv')} |"
        for line in lines
    ]
    page += ["", "## By family", "", "*Majority*: always the family's commonest answer, in words.", ""]
    page += [f"| family | {' | '.join(families)} |", "| --- |" + " --- |" * len(families)]
    for name in whole.families:
        cells = " | ".join(f"{column.get(name, np.nan):.3f}" for column in families.values())
        page.append(f"| {name} | {cells} |")
    publish("smol_accuracy", page, {**part.about, "rows": lines, "families": families})


def majority(comparison: Comparison) -> dict[str, float]:
    """What always giving each family's commonest answer would score."""
    answers = np.array([question.answer for questions in comparison.evaluation.questions for question in questions])
    of_family = {name: answers[comparison.family == index] for index, name in enumerate(comparison.families)}
    return {name: Counter(own.tolist()).most_common(1)[0][1] / len(own) for name, own in of_family.items()}


if __name__ == "__main__":
    typer.run(main)
