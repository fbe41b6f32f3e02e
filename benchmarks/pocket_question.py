"""Does it help to know the question? CDPruner told and not told what is asked, beside SharpV, on pocket.

    python benchmarks/pocket_question.py [--videos 200]

The other tables ask all questions of a video behind one choice of tokens; here each question has its own. The question
is the mean embedding of its text, as :func:`sharpv.apply` gives it. Writes docs/results/pocket_question.{md,json}.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
import typer
from timing import publish
from torch import Tensor

from sharpv import SharpV
from sharpv.budget import Budget
from sharpv.comparison import Comparison, Outcome, Row, prepare, versus_first
from sharpv.methods import CDPruner, Method
from sharpv.pocket.evaluate import score
from sharpv.pocket.packing import tokenise

RETENTIONS = (0.5, 0.25, 0.12, 0.06)
METHODS: dict[str, Method] = {
    "SharpV": SharpV(),
    "CDPruner, told no question": CDPruner(),
    "CDPruner, told the question": CDPruner(),
    "CDPruner, told the question, far is relevant": CDPruner(sign=-1.0),
}


@dataclass
class Asked:
    """The comparison's questions one by one."""

    comparison: Comparison

    def __post_init__(self) -> None:
        whole = self.comparison.evaluation
        each = [question for questions in whole.questions for question in questions]
        episodes = [whole.episodes[video] for video in self.comparison.video]
        self.evaluation = replace(whole, episodes=episodes, questions=[[question] for question in each])
        self.features = self.comparison.features[self.comparison.video]
        embed = self.comparison.model.get_input_embeddings()
        tokens = tokenise(each, self.comparison.phrasing)
        self.questions: list[Tensor] = [embed(torch.tensor(question.prompt)).mean(0) for question in tokens]

    def run(self, row: Row, told: bool) -> Outcome:
        assert row.method is not None
        keep = torch.stack(
            [
                (row.method.about(question) if told else row.method).select(video, Budget(row.retention)).keep
                for video, question in zip(self.features, self.questions, strict=True)
            ]
        )
        records = score(self.comparison.model, self.evaluation, self.features, keep, batch=32)
        return Outcome(row, keep.float().mean().item(), np.array([int(record.correct) for record in records]))


@torch.no_grad()
def main(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 200,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    comparison = prepare("pocket", videos, 8)
    asked = Asked(comparison)
    columns = [
        [asked.run(Row(label, method, retention), "told the question" in label) for label, method in METHODS.items()]
        for retention in RETENTIONS
    ]
    (dense,) = comparison.run([Row("dense")])
    lines = [
        "# Pocket: knowing the question",
        "",
        f"{videos} videos of 8 frames, {len(comparison.video):,} questions, each with tokens chosen for it alone; mean "
        "exact match over the question families, first stage only, exactly the same number of tokens in each column. "
        f"Dense: {comparison.accuracy(dense):.3f}. In brackets the difference to SharpV in points, paired by video, "
        "with its 95 % bootstrap interval. Written by `python benchmarks/pocket_question.py`.",
        "",
        *versus_first(comparison, columns),
    ]
    rows = [comparison.facts(outcome, column[0]) for column in columns for outcome in column]
    publish("pocket_question", lines, {**comparison.about, "dense": comparison.accuracy(dense), "rows": rows})


if __name__ == "__main__":
    typer.run(main)
