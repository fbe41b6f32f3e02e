"""sharpv+ against SharpV on pocket, on videos that had no part in choosing it.

    python benchmarks/pocket_plus.py [--folder runs/plus]

The ranking was chosen among six on the first 400 evaluation videos, after the table of methods; here the other 600
decide. Writes docs/results/pocket_plus.{md,json}.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from timing import publish

from sharpv import SharpV, pocket
from sharpv.comparison import Comparison, Row, versus_first
from sharpv.methods import DivPrune, SharpVPlus
from sharpv.pocket.evaluate import evaluation_set
from sharpv.pocket.packing import pocket_phrasing

CHOSEN_ON = 400
ADAPTIVE, RETENTIONS = None, (0.5, 0.25, 0.12, 0.06)


def main(
    videos: Annotated[int, typer.Option(help="The evaluation's videos, of which the first 400 are left out.")] = 1000,
    folder: Annotated[Path, typer.Option(help="Where finished rows are kept.")] = Path("runs/plus"),
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    whole = evaluation_set(videos)
    rest = replace(whole, episodes=whole.episodes[CHOSEN_ON:], questions=whole.questions[CHOSEN_ON:])
    comparison = Comparison(pocket.load()[0], rest, pocket_phrasing(), folder)
    columns = []
    for retention in (ADAPTIVE, *RETENTIONS):
        rows = [Row("SharpV", SharpV(), retention), Row("SharpV+", SharpVPlus(), retention)]
        if retention is not ADAPTIVE:
            rows.append(Row("DivPrune, frame by frame", DivPrune(), retention))
        columns.append(list(comparison.run(rows)))
    lines = [
        "# Pocket: SharpV+",
        "",
        "SharpV's counts, importance and diversity in each frame; the rule was chosen among six on the first "
        f"{CHOSEN_ON} evaluation videos; here are the other {len(rest)}, of 8 frames, {len(comparison.video):,} "
        "questions. Mean exact match over the question families, first stage only; in brackets the difference to "
        "SharpV at the same number of tokens in points, paired by video, with its 95 % bootstrap interval. Written by "
        "`python benchmarks/pocket_plus.py`.",
        "",
        "The content decides how much:",
        "",
        *versus_first(comparison, columns[:1]),
        "",
        "The number is given:",
        "",
        *versus_first(comparison, columns[1:]),
    ]
    facts = [comparison.facts(outcome, column[0]) for column in columns for outcome in column]
    publish("pocket_plus", lines, {**comparison.about, "rows": facts})


if __name__ == "__main__":
    typer.run(main)
