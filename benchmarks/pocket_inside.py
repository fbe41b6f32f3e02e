"""What happens inside the model, on pocket, the way a user runs it: FastV, VTW, and the criteria of the second stage.

    python benchmarks/pocket_inside.py [--videos 100] [--model DIR]

Every question goes through processor, ``sharpv.apply``, ``generate`` and exact match of the decoded text. Each row is
placed by what all layers together keep of visual tokens x layers, which is the same unit for all. Writes
docs/results/pocket_inside.{md,json}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from timing import publish

import sharpv
from sharpv import Contribution, pocket
from sharpv.asking import answer
from sharpv.methods import VTW, FastV
from sharpv.pocket.evaluate import EvaluationSet, evaluation_set, prompt_inputs
from sharpv.pocket.questions import Question

RESAMPLES = 2000
GROUPS = ("1 token", "2 to 9 tokens", "10 tokens and more")
SHARE_OF_SHORT = 0.25
"""Answers of one token are many: they are asked about so many of the videos only."""
WHOLE: dict[str, Any] = {"method": "sharpv", "retention": 1.0, "memory": None}
ROWS: dict[str, dict[str, Any]] = {
    "dense": WHOLE,
    **{
        f"FastV, layer {k}, keeps {r:.0%}": {"method": FastV(k), "retention": r} for k in (1, 2, 3) for r in (0.5, 0.25)
    },
    **{f"VTW, layer {k}": {"method": VTW(k)} for k in (2, 3, 4)},
    **{f"paper's rule, M = {m}": {**WHOLE, "memory": m} for m in (0.2, 0.25, 0.3)},
    **{
        f"contribution, {rows} row{'s' * (rows > 1)}, keeps {share:.0%} of the layers": {
            **WHOLE,
            "memory": Contribution(kv_budget=share, rows=rows),
        }
        for rows in (1, 4)
        for share in (0.8, 0.6)
    },
    **{f"contribution below {t}": {**WHOLE, "memory": Contribution(threshold=t, rows=4)} for t in (0.1, 0.2)},
    "SharpV first stage alone, keeps 50%": {**WHOLE, "retention": 0.5},
    "SharpV first stage alone, keeps 25%": {**WHOLE, "retention": 0.25},
}


def main(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 100,
    model: Annotated[str | None, typer.Option(help="Another checkpoint of pocket.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    network, processor = pocket.load(directory=model)
    evaluation = evaluation_set(videos, 8)
    few = videos * SHARE_OF_SHORT

    def questions_of(index: int) -> list[Question]:
        return [q for q in evaluation.questions[index] if index < few or group_of(processor, q) > 0]

    outcome = ask_all(network, processor, evaluation, questions_of, ROWS)
    publish(
        "pocket_inside",
        *page(
            outcome,
            "# Pocket: inside the language model",
            "An answer of one token is read at prefill, which FastV and VTW change and the second stage does not. "
            "Written by `python benchmarks/pocket_inside.py`.",
        ),
    )


@dataclass
class Outcome:
    """What every row of settings made of the same questions, by video and group."""

    what: str
    """The videos, in words."""
    asked: np.ndarray
    """(videos, groups) questions."""
    right: dict[str, np.ndarray]
    """(videos, groups) right answers of each row."""
    kept: dict[str, list[tuple[float, float]]]
    """Of each row and question: visual tokens x layers, and KV bytes, as shares of dense."""


def ask_all(
    network: Any,
    processor: Any,
    evaluation: EvaluationSet,
    questions_of: Callable[[int], list[Question]],
    rows: Mapping[str, Mapping[str, Any]],
) -> Outcome:
    """Ask every question once for each row of options for ``sharpv.apply``."""
    shape = (len(evaluation), len(GROUPS))
    what = f"{len(evaluation)} videos of {evaluation.frames} frames"
    outcome = Outcome(what, np.zeros(shape), {name: np.zeros(shape) for name in rows}, {name: [] for name in rows})
    console = Console()
    for index in track(range(len(evaluation)), "asking", console=console, disable=not console.is_terminal):
        clip = evaluation.video(index)
        for question in questions_of(index):
            group = group_of(processor, question)
            inputs = prompt_inputs(processor, clip, question.prompt)
            outcome.asked[index, group] += 1
            for name, options in rows.items():
                with sharpv.apply(network, **options) as pruning:
                    said = answer(network, processor, inputs)
                assert pruning.report is not None and pruning.report.kv_retention is not None
                outcome.right[name][index, group] += said.text == question.answer
                outcome.kept[name].append((pruning.report.layer_retention, pruning.report.kv_retention))
    return outcome


def group_of(processor: Any, question: Question) -> int:
    """Index in GROUPS."""
    length = len(processor.tokenizer(question.answer)["input_ids"])
    return 0 if length == 1 else 1 if length < 10 else 2


def page(outcome: Outcome, title: str, closing: str) -> tuple[list[str], list[dict]]:
    """The Markdown page and its figures; intervals by bootstrap over videos, paired with the first row."""
    videos = len(outcome.asked)
    groups = {group: name for group, name in enumerate(GROUPS) if outcome.asked[:, group].any()}
    draws = np.random.default_rng(0).multinomial(videos, np.full(videos, 1 / videos), size=RESAMPLES)
    draws = np.vstack([np.ones(videos), draws])
    counts = ", ".join(f"{int(outcome.asked[:, group].sum())} answers of {name}" for group, name in groups.items())
    lines = [
        title,
        "",
        f"{outcome.what}; every question through processor, `sharpv.apply` and `generate`, decoded "
        f"answers matched exactly: {counts}. In brackets the difference to dense in points and its paired 95 % "
        f"interval. {closing}",
        "",
        "| | visual tokens x layers kept | KV bytes kept, text included | " + " | ".join(groups.values()) + " |",
        "| --- |" + " --- |" * (2 + len(groups)),
    ]
    facts, dense = [], None
    for name, hits in outcome.right.items():
        accuracy = (draws @ hits) / np.maximum(draws @ outcome.asked, 1)
        dense = accuracy if dense is None else dense
        difference = 100 * (accuracy - dense)
        low, high = np.percentile(difference[1:], [2.5, 97.5], axis=0)
        layers, stored = np.mean(outcome.kept[name], axis=0)
        cells = [
            f"{accuracy[0, g]:.3f}" + f" ({difference[0, g]:+.1f} [{low[g]:+.1f}, {high[g]:+.1f}])" * bool(facts)
            for g in groups
        ]
        lines.append(f"| {name} | {100 * layers:.1f} % | {100 * stored:.1f} % | " + " | ".join(cells) + " |")
        facts.append(
            {"row": name, "layer_retention": float(layers), "kv_retention": float(stored),
             "accuracy": {label: float(accuracy[0, group]) for group, label in groups.items()}}
        )  # fmt: skip
    return lines, facts


if __name__ == "__main__":
    typer.run(main)
