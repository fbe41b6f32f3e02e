"""What the second stage frees on smol, in stored bytes, and what it costs: through ``sharpv.apply`` and ``generate``.

    python benchmarks/smol_memory.py [--videos 20] [--frames 8] [--retention 0.12]

Questions whose answers have several tokens; the paper's rule from M = 0 on, contributions, and the layers that
``sharpv.calibrate`` keeps, found on other videos. Writes docs/results/smol_memory.{md,json}.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
import typer
from pocket_inside import ask_all, page
from second_stage import calibrated_on_others, load
from timing import publish

from sharpv import Contribution
from sharpv.pocket.evaluate import evaluation_set

PAPER = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
CONTRIBUTIONS = (0.6, 0.2)
TOLERANCES = (0.01, 0.03)
"""Of calibrate: its default, and one that is less careful."""


def main(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 20,
    frames: Annotated[int, typer.Option(help="Frames a video.")] = 8,
    retention: Annotated[float, typer.Option(help="Kept share of the first stage.")] = 0.12,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    model, processor, _, questions_of = load("smol")
    found = {t: calibrated_on_others(model, processor, questions_of, retention, tolerance=t).memory for t in TOLERANCES}
    evaluation = evaluation_set(videos, frames)
    forgetting: dict[str, Any] = {
        "nothing forgotten": None,
        **{f"paper's rule, M = {m}": m for m in PAPER},
        **{f"contribution, keeps {share:.0%} of the layers": Contribution(kv_budget=share) for share in CONTRIBUTIONS},
        **{
            f"calibrated, tolerance {t:g}: keeps layers {', '.join(map(str, layers.keep))}": layers
            for t, layers in found.items()
        },
    }
    share = f"kept {100 * retention:g} %"
    rows = {
        "dense": {"retention": 1.0, "memory": None},
        **{f"{share}; {name}": {"retention": retention, "memory": memory} for name, memory in forgetting.items()},
    }
    outcome = ask_all(model, processor, evaluation, lambda index: questions_of(evaluation, index), rows)
    asked = f"--videos {videos} --frames {frames} --retention {retention}"
    publish(
        "smol_memory",
        *page(
            outcome,
            "# Smol: what the second stage frees",
            f"Written by `python benchmarks/smol_memory.py {asked}`.",
        ),
    )


if __name__ == "__main__":
    typer.run(main)
