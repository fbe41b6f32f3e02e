"""Why pocket counts moving objects wrongly when little is kept: every object token stays, the rest varies.

    python benchmarks/pocket_counting.py [--videos 400]

Asks "How many objects move?" with all object tokens and so many random others, and with SharpV's tokens and so many
random others. Writes docs/results/pocket_counting.{md,json} and prints the table.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from timing import publish
from torch import Tensor

from sharpv import Budget, SharpV, pocket
from sharpv.pocket.evaluate import EvaluationSet, evaluation_set, extract_features
from sharpv.pocket.labels import motion_labels
from sharpv.pocket.packing import IGNORE, forward, pack, pocket_phrasing, prefix_of, tokenise
from sharpv.pocket.tokens import vocabulary

FAMILY = "moving_count"
OTHERS = (0, 20, 50, 100, 200, 300)


@torch.no_grad()
def main(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 400,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    model, _ = pocket.load()
    evaluation = counting(evaluation_set(videos))
    features = extract_features(model, evaluation)
    objects = torch.stack([torch.from_numpy(motion_labels(e, 8).is_object) for e in evaluation.episodes])
    objects = objects.view(features.shape[:3])
    quarter = torch.stack([SharpV().select(video, Budget(0.25)).keep for video in features])
    lines = []
    for label, base in (("all object tokens", objects), ("SharpV, 25 % kept", quarter)):
        for others in OTHERS:
            keep = with_others(base, others)
            errors = count_errors(model, evaluation, features, keep)
            lines.append(
                {"tokens": label, "others": others, "kept": keep.sum().item() / len(keep),
                 "right": (errors == 0).float().mean().item(), "error": errors.float().mean().item()}
            )  # fmt: skip
    publish("pocket_counting", page(lines, len(evaluation)), {"videos": len(evaluation), "rows": lines})


def counting(evaluation: EvaluationSet) -> EvaluationSet:
    """The videos that are asked for a count, with that question alone."""
    found = [
        (episode, [question for question in questions if question.family == FAMILY and question.form == "short"][:1])
        for episode, questions in zip(evaluation.episodes, evaluation.questions, strict=True)
    ]
    episodes, questions = zip(*[(episode, asked) for episode, asked in found if asked], strict=True)
    return EvaluationSet(evaluation.frames, list(episodes), list(questions))


def with_others(base: Tensor, others: int) -> Tensor:
    """The tokens of ``base`` ``(videos, T, N)`` and so many random ones of the rest."""
    draw = torch.rand(base.shape, generator=torch.Generator().manual_seed(0)).masked_fill(base, -1.0).flatten(1)
    threshold = draw.sort(dim=1, descending=True).values[:, others, None]
    return base | ((draw > threshold) & (draw >= 0)).view_as(base)


def count_errors(model, evaluation: EvaluationSet, features: Tensor, keep: Tensor) -> Tensor:
    """Answered minus true count of each video."""
    phrasing, words, errors = pocket_phrasing(), vocabulary(), []
    for asked, video, kept in zip(evaluation.questions, features, keep, strict=True):
        packed = pack([tokenise(asked, phrasing)])
        prefix = prefix_of(video.flatten(0, 1)[None], kept.flatten()[None], head=len(phrasing.head))
        hidden, _ = forward(model, prefix, packed, phrasing=phrasing)
        place = (packed.target[0] != IGNORE).nonzero()[0, 0]
        errors.append(int(words[int(model.lm_head(hidden)[0, place].argmax())]) - int(asked[0].answer))
    return torch.tensor(errors)


def page(lines: list[dict], videos: int) -> list[str]:
    """The Markdown page, line by line."""
    text = [
        "# Pocket: why it counts movers wrongly when little is kept",
        "",
        f'"How many objects move?", {videos} videos of 8 frames (392 visual tokens). Every token that shows an object '
        "stays, or SharpV's quarter does; random others are added. Written by `python benchmarks/pocket_counting.py`.",
        "",
        "| tokens | random others | kept, mean | right | answered minus true, mean |",
        "| --- | --- | --- | --- | --- |",
    ]
    text += [
        f"| {line['tokens']} | {line['others']} | {line['kept']:.0f} | {line['right']:.3f} | {line['error']:+.2f} |"
        for line in lines
    ]
    return text


if __name__ == "__main__":
    typer.run(main)
