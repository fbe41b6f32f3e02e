"""How smol's training went: its monitor, its loss and what became of the language model's own replies.

    python benchmarks/smol_training.py FIRST/log.jsonl SECOND/log.jsonl

One log for each run of ``python -m sharpv.smol.train`` behind the weights that ship, in their order; each later run
started from the deltas of the one before. Writes docs/results/smol_training.md and the logs beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from timing import RESULTS

from sharpv.smol.prompts import EVALUATION
from sharpv.smol.train import SmolStage

NO_FAMILY = {"monitor", "mean", "reply_loss", "seconds", "cpu_seconds"}
EVERY = 100
"""Steps to a row of the table."""
COLUMNS = {"frames": 0, "kept": 0, "loss": 3, "token_accuracy": 3, "motion_accuracy": 3, "drift": 3}
"""What is in a row, and to how many digits."""


def main(logs: Annotated[list[Path], typer.Argument(help="log.jsonl of each run.", exists=True)]) -> None:
    texts = [log.read_text() for log in logs]
    runs = [[json.loads(line) for line in text.splitlines()] for text in texts]
    before = next(record["reply_loss_before"] for record in runs[0] if "reply_loss_before" in record)
    monitors = [(run, record) for run, records in enumerate(runs, 1) for record in records if "monitor" in record]
    families = [name for name in monitors[-1][1] if name not in NO_FAMILY]
    after = monitors[-1][1]["reply_loss"]
    lines = [
        "# Smol: training",
        "",
        "On two CPU cores; the logs lie beside this page, and each run but the first started from the deltas of the "
        "one before. Loss is that of the answers' tokens in training as the run weighed them, token accuracy the share "
        "of them that is the likeliest; drift is what the replies to prompts without a video moved in training, KL in "
        f"nats; means of {EVERY} steps. *Set apart*: as a run ends. Written by `python benchmarks/smol_training.py`.",
        "",
        "| run | stage | steps | frames | tokens kept | loss | token accuracy | motion accuracy | drift |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(f"| {run} | {row} |" for run, records in enumerate(runs, 1) for row in rows(records)),
        "",
        f"Loss on SmolLM2's own replies to {len(EVALUATION)} prompts that are not trained on: {before:.3f} before, "
        f"{after:.3f} after ({100 * (after / before - 1):+.0f} %).",
        "",
        "Accuracy on videos that are in neither the training nor the evaluation set, all tokens kept:",
        "",
        f"| run | step | replies' loss | mean | {' | '.join(families)} |",
        f"| --- | --- | --- | --- |{' --- |' * len(families)}",
    ]
    for run, record in monitors:
        earlier = runs[run - 1][: runs[run - 1].index(record)]
        logged = [record["stage"] for record in earlier if "stage" in record]  # none yet in a run of a step or two
        stage = "set apart" if "apart" in earlier[-1] else (logged or [SmolStage.name])[-1]
        cells = " | ".join(f"{record[name]:.2f}" for name in families)
        lines.append(
            f"| {run} | {stage} {record['monitor']} | {record['reply_loss']:.3f} | {record['mean']:.3f} | {cells} |"
        )
    (RESULTS / "smol_training.md").write_text("\n".join(lines) + "\n")
    for run, text in enumerate(texts, 1):
        (RESULTS / f"smol_training_{run}.jsonl").write_text(text)


def rows(log: list[dict[str, Any]]) -> list[str]:
    """The cells of one row every so many steps of a stage."""
    made = []
    steps = [record for record in log if "stage" in record]
    for stage in dict.fromkeys(record["stage"] for record in steps):
        own = [record for record in steps if record["stage"] == stage]
        for start in range(0, own[-1]["step"], EVERY):
            part = [record for record in own if start < record["step"] <= start + EVERY]
            cells = [stage, f"{start + 1} to {part[-1]['step']}"]
            for name, digits in COLUMNS.items():
                cells.append(f"{np.nanmean([record.get(name, np.nan) for record in part]):.{digits}f}")
            made.append(" | ".join(cells))
    return made


if __name__ == "__main__":
    typer.run(main)
