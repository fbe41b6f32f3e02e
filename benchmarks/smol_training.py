"""How smol's training went: its monitor, its loss and what became of the language model's own replies.

    python benchmarks/smol_training.py RUN

RUN is what ``python -m sharpv.smol.train RUN --seed N`` wrote. Writes docs/results/smol_training.md and the run's log
beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from timing import RESULTS

from sharpv.smol.prompts import EVALUATION

NO_FAMILY = {"monitor", "mean", "reply_loss", "seconds", "cpu_seconds"}
EVERY = 100
"""Steps to a row of the table."""


def main(run: Annotated[Path, typer.Argument(help="The folder of a training run.")]) -> None:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    before = next(record["reply_loss_before"] for record in log if "reply_loss_before" in record)
    monitors = [record for record in log if "monitor" in record]
    families = [name for name in monitors[-1] if name not in NO_FAMILY]
    after = monitors[-1]["reply_loss"]
    lines = [
        "# Smol: training",
        "",
        "`python -m sharpv.smol.train RUN --seed 0 --fast` on two CPU cores; the log lies beside this page. Loss is "
        "that of the answers' tokens in training, token accuracy the share of them that is the likeliest; drift is "
        "what the replies to prompts without a video moved in training, KL in nats. Means of "
        f"{EVERY} steps. Written by `python benchmarks/smol_training.py`.",
        "",
        "| stage | steps | frames | tokens kept | loss | token accuracy | drift |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows(log),
        "",
        f"Loss on SmolLM2's own replies to {len(EVALUATION)} prompts that are not trained on: {before:.3f} before, "
        f"{after:.3f} after ({100 * (after / before - 1):+.0f} %).",
        "",
        "Accuracy on videos that are in neither the training nor the evaluation set, all tokens kept:",
        "",
        f"| | mean | {' | '.join(families)} |",
        f"| --- | --- |{' --- |' * len(families)}",
    ]
    for record in monitors:
        stage = next(r["stage"] for r in reversed(log[: log.index(record)]) if "stage" in r)
        cells = " | ".join(f"{record[name]:.2f}" for name in families)
        lines.append(f"| {stage}, step {record['monitor']} | {record['mean']:.3f} | {cells} |")
    (RESULTS / "smol_training.md").write_text("\n".join(lines) + "\n")
    (RESULTS / "smol_training.jsonl").write_text((run / "log.jsonl").read_text())


def rows(log: list[dict[str, Any]]) -> list[str]:
    """One row every so many steps of a stage."""
    made = []
    steps = [record for record in log if "stage" in record]
    for stage in dict.fromkeys(record["stage"] for record in steps):
        own = [record for record in steps if record["stage"] == stage]
        for start in range(0, own[-1]["step"], EVERY):
            part = [record for record in own if start < record["step"] <= start + EVERY]
            means = {name: np.mean([r[name] for r in part]) for name in ("frames", "kept", "loss", "token_accuracy")}
            drift = np.mean([r["drift"] for r in part if "drift" in r])
            cells = [f"{value:.{3 if name in ('loss', 'token_accuracy') else 0}f}" for name, value in means.items()]
            made.append(f"| {stage} | {start + 1} to {part[-1]['step']} | {' | '.join(cells)} | {drift:.3f} |")
    return made


if __name__ == "__main__":
    typer.run(main)
