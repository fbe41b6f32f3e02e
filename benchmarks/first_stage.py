"""What the first stage costs in answers, on the embedded models: one command a study.

    python benchmarks/first_stage.py STUDY [--videos N] [--model pocket|smol] [--smoke --out DIR]

Every row of a study answers the same questions about the same videos, with the true answer fed back, which equals
greedy generation; differences are paired by video, with 95 % bootstrap intervals. Pages go to docs/results.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from common import Run, Study, beside, by_family, part_of, percent, script, table
from numpy.typing import NDArray
from rules import METRICS, EqualFrames, Ranked
from torch import Tensor
from torch.nn.functional import interpolate

from sharpv import SharpV, pocket
from sharpv.evaluation.comparison import Comparison, Outcome, Row, curves, keep_masks, versus_first
from sharpv.evaluation.packing import IGNORE, forward, pack, pocket_phrasing, prefix_of, tokenise
from sharpv.evaluation.scoring import EvaluationSet, evaluation_set, extract_features, score
from sharpv.methods import METHODS, CDPruner, DivPrune, Method, Random, SharpVPlus
from sharpv.methods.budget import Budget
from sharpv.methods.evs import EVS
from sharpv.models import find_family
from sharpv.pocket.model import pixel_values
from sharpv.pocket.tokens import vocabulary
from sharpv.vision.asked import Encoding
from sharpv.vision.encoding import encode_videos
from training.pocket.labels import motion_labels

DENSE = Row("dense")
SHARES = (0.5, 0.25, 0.12, 0.06)
CHOSEN_ON = 400
"""SharpV+ was chosen on so many of the evaluation's videos."""


def shares(run: Run, every: Sequence[float] = SHARES) -> Sequence[float]:
    return every[1:2] if run.smoke else every


def introduction(run: Run, comparison: Comparison, words: str) -> str:
    return (
        f"{len(comparison.evaluation):,} videos of {run.frames} frames, {len(comparison.video):,} questions; mean "
        f"exact match over the question families, first stage only. {words} Written by {run.command}."
    )


# rows at equal numbers of tokens --------------------------------------------------------------------------------------


def grid(run: Run, title: str, rows: dict[str, Method], words: str, name: str, plot: bool = False) -> None:
    """A column for each share, a row for each method, beside the first."""
    comparison = run.comparison()
    (dense,) = comparison.run([DENSE])
    columns = []
    for share in shares(run):
        columns.append(list(comparison.run([Row(label, method, share) for label, method in rows.items()])))
        run.say(f"kept {percent(share, 0)}: done")
    top = comparison.accuracy(dense)
    lines = [
        f"# {title}",
        "",
        introduction(run, comparison, f"Exactly the same number of tokens in each column. Dense: {top:.3f}. {words}"),
        "",
        *versus_first(comparison, columns),
    ]
    every = [outcome for column in columns for outcome in column]
    facts = [comparison.facts(outcome, dense) for outcome in every]
    about = {**comparison.about, "dense": top, "rows": facts}
    run.publish(name, lines, about)
    if plot:
        run.compare(name, title, about)
        points = curves(comparison, every)
        run.draw(name, points, "visual tokens before the LLM", "mean accuracy", ("dense", top))


def methods(run: Run) -> None:
    """Every registered method, SharpV first, and other ways of some."""
    registered = {name: method() for name, method in METHODS.items()}
    others: dict[str, Method] = {
        "evs, without its anchor frame": EVS(anchor_frame=False),
        "divprune, whole video": DivPrune(scope="video"),
        "control: random at SharpV's counts": Random(counts_of=SharpV()),
    }
    name = Path(run.model).name
    words = "In brackets the difference to SharpV in points. pool and fastvid merge; cdpruner is told no question."
    title = f"{name.capitalize()}: methods side by side"
    grid(run, title, {"sharpv": SharpV(), **registered, **others}, words, f"{name}_methods", plot=True)


def metrics(run: Run) -> None:
    """Other importance metrics in SharpV's frame."""
    words = "In brackets the difference to the paper's rule in points."
    grid(run, "Pocket: other importance metrics", dict(METRICS), words, "pocket_metrics")


# budgets --------------------------------------------------------------------------------------------------------------


def accuracy(run: Run) -> None:
    """What is kept against what is still answered, by budget and by family."""
    name = Path(run.model).name
    comparison = run.comparison()
    adaptive = round(keep_masks(SharpV(), comparison.features, None)[0].float().mean().item(), 4)
    (dense,) = comparison.run([DENSE])
    rows, facts = [["100 %", "dense", f"{comparison.accuracy(dense):.3f}", "", ""]], [comparison.facts(dense, dense)]
    families = {"majority": majority(comparison), "dense": comparison.by_family(dense)}
    for budget in (None, *shares(run, SHARES[:3])):
        outcomes = list(comparison.run(block(budget, adaptive)))
        first = outcomes[0]
        families[f"SharpV, {'adaptive' if budget is None else percent(budget, 0)}"] = comparison.by_family(first)
        for each in outcomes:
            rows.append(
                [percent(each.kept), each.row.label, f"{comparison.accuracy(each):.3f}",
                 beside(comparison, each, dense), beside(comparison, each, first)]
            )  # fmt: skip
            to_sharpv = comparison.difference(each, first)
            facts.append({**comparison.facts(each, dense), "budget": budget, "to_sharpv": to_sharpv})
    words = (
        f"Differences are in points. SharpV adaptive keeps {percent(adaptive)} here, unprompted; rows of the first "
        "block that need a number get that one."
    )
    lines = [
        f"# {name.capitalize()}: what is kept, what is still answered",
        "",
        introduction(run, comparison, words),
        "",
        *table(["kept before the LLM", "what", "accuracy", "to dense", "to SharpV at this budget"], rows),
        "",
        "## By family",
        "",
        "*Majority*: always the family's commonest answer, in words.",
        "",
        *by_family(families, comparison.families),
    ]
    about = {**comparison.about, "rows": facts, "families": families}
    run.publish(f"{name}_accuracy", lines, about)
    run.compare(f"{name}_accuracy", lines[0].removeprefix("# "), about)


def block(budget: float | None, adaptive: float) -> list[Row]:
    """The rows of one budget; None: the content decides, and rows that need a number get what it kept."""
    return [
        Row("SharpV", SharpV(), budget),
        Row("SharpV, packed positions", SharpV(), budget, "packed"),
        Row("random at SharpV's counts", Random(counts_of=SharpV()), budget),
        Row("SharpV's ranking, equal counts a frame", EqualFrames(), budget or adaptive),
        Row("T only (w = 0), SharpV's counts", SharpV(weight=0.0), budget),
        Row("S only, SharpV's counts", Ranked(by="S"), budget),
    ]


def majority(comparison: Comparison) -> dict[str, float]:
    """What always giving each family's commonest answer would score."""
    answers = np.array([question.answer for questions in comparison.evaluation.questions for question in questions])
    of_family = {name: answers[comparison.family == index] for index, name in enumerate(comparison.families)}
    return {name: Counter(own.tolist()).most_common(1)[0][1] / len(own) for name, own in of_family.items()}


def plus(run: Run) -> None:
    """SharpV+ against SharpV, on videos that had no part in choosing it."""
    chosen_on = 0 if run.smoke else CHOSEN_ON
    rest = part_of(evaluation_set(run.videos), range(chosen_on, run.videos))
    comparison = Comparison(pocket.load()[0], rest, pocket_phrasing(), None if run.smoke else run.folder / "plus")
    rows: dict[str, Method] = {"SharpV": SharpV(), "SharpV+": SharpVPlus(), "DivPrune, frame by frame": DivPrune()}
    columns = []
    for share in (None, *shares(run)):
        able = {label: method for label, method in rows.items() if share is not None or method.adaptive}
        columns.append(list(comparison.run([Row(label, method, share) for label, method in able.items()])))
    words = (
        "SharpV's counts, importance and diversity in each frame; the rule was chosen among six on the first "
        f"{CHOSEN_ON} evaluation videos, these are the others. In brackets the difference to SharpV at the same number "
        "of tokens in points."
    )
    lines = ["# Pocket: SharpV+", "", introduction(run, comparison, words), "", "The content decides how much:", ""]
    lines += [*versus_first(comparison, columns[:1]), "", "The number is given:", ""]
    lines += versus_first(comparison, columns[1:])
    facts = [comparison.facts(outcome, column[0]) for column in columns for outcome in column]
    run.publish("pocket_plus", lines, {**comparison.about, "rows": facts})


# which patches are encoded --------------------------------------------------------------------------------------------

KEPT = {
    "all tokens": DENSE,
    "adaptive": Row("SharpV, adaptive", SharpV()),
    "25 %": Row("SharpV 25 %", SharpV(), 0.25),
    "12 %": Row("SharpV 12 %", SharpV(), 0.12),
}
RULES: dict[str, tuple[str, ...]] = {
    "changed": ("all tokens", "adaptive", "25 %", "12 %"),
    "changed:threshold=0.05": ("all tokens", "adaptive", "25 %", "12 %"),
    "changed:threshold=0.2": ("all tokens", "25 %", "12 %"),
    "changed:threshold=0.1,limit=0": ("all tokens", "25 %", "12 %"),
    "kept:share=0.25": ("25 %", "12 %"),
    "kept:share=0.25,threshold=0.05": ("25 %",),
    "kept:share=0.12": ("12 %",),
    "kept:share=0.18": ("12 %",),
}
"""Ways to encode, with the budgets that each is measured at."""


def encode(run: Run) -> None:
    """How many patches each way to encode leaves out, and what the answers lose."""
    comparison = run.comparison()
    every = dict(zip(KEPT, comparison.run(list(KEPT.values())), strict=True))
    rules = dict(list(RULES.items())[:: 4 if run.smoke else 1])
    if run.model != "pocket":
        rules = {
            name: some for name, some in rules.items() if name in ("changed", "kept:share=0.25", "kept:share=0.12")
        }
    lines, facts = [], []
    for rule, names in rules.items():
        other, shares = encoded(comparison, rule)
        if run.model != "pocket":
            names = tuple(name for name in names if name.endswith("%"))
        outcomes = dict(zip(names, other.run([KEPT[name] for name in names]), strict=True))
        differences = {name: other.difference(outcome, every[name]) for name, outcome in outcomes.items()}
        total = percent(outcomes["adaptive"].kept) if "adaptive" in outcomes else ""
        lines.append(
            [f"`{rule}`", f"{percent(float(shares.mean()))} ({percent(float(np.median(shares)))})",
             *(differences.get(name, "") for name in KEPT), total]
        )  # fmt: skip
        facts.append({"rule": rule, "encoded": float(shares.mean()), "differences": differences})
        run.say(f"{rule}: done")
    accuracies = {name: comparison.accuracy(outcome) for name, outcome in every.items()}
    words = (
        "Points against the same row with every patch encoded, which answers "
        f"{', '.join(f'{value:.3f} ({name})' for name, value in accuracies.items())}; adaptive keeps "
        f"{percent(every['adaptive'].kept)} there. Pixels in [-1, 1]."
    )
    head = ["encode", "patches encoded (median video)", *KEPT, "adaptive keeps"]
    title = f"# {Path(run.model).name.capitalize()}: which patches are encoded, {run.frames} frames"
    page = [title, "", introduction(run, comparison, words), "", *table(head, lines)]
    name = f"{Path(run.model).name}_encode_{run.frames}"
    run.publish(name, page, {**comparison.about, "rows": facts, "every_patch": accuracies})


@torch.no_grad()
def encoded(comparison: Comparison, rule: str) -> tuple[Comparison, NDArray[Any]]:
    """The same comparison with the features that a way to encode gives, and the share encoded of each video."""
    other, model = copy.copy(comparison), comparison.model
    family, encoding = find_family(model), Encoding(rule)
    if comparison.store is not None:
        other.store = comparison.store.with_name(f"{rule}.json")
    other.finished = other._read()
    features, shares = [], []
    for index in range(len(comparison.evaluation)):
        pixels = pixel_values(comparison.evaluation.video(index)).to(model.dtype)
        inputs = {"pixel_values_videos": pixels[None], "input_ids": torch.zeros(1, 1)}
        found = encode_videos(model, family, encoding, Budget(), inputs)
        features += found.patches
        shares += [float(plan.encoded.float().mean()) for plan in found.plans if plan is not None]
    other.features = torch.stack(features)
    return other, np.array(shares)


# the question ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def question(run: Run) -> None:
    """CDPruner told and not told what is asked, beside SharpV; each question has tokens of its own."""
    rows: dict[str, tuple[Method, bool]] = {
        "SharpV": (SharpV(), False),
        "CDPruner, told no question": (CDPruner(), False),
        "CDPruner, told the question": (CDPruner(), True),
        "CDPruner, told the question, far is relevant": (CDPruner(sign=-1.0), True),
    }
    comparison = run.comparison()
    whole = comparison.evaluation
    each = [question for questions in whole.questions for question in questions]
    episodes = [whole.episodes[video] for video in comparison.video]
    apart = replace(whole, episodes=episodes, questions=[[question] for question in each])
    features = comparison.features[comparison.video]
    embed = comparison.model.get_input_embeddings()
    tokens = tokenise(each, comparison.phrasing)
    about = [embed(torch.tensor(asked.prompt)).mean(0) for asked in tokens]

    def ask(row: Row, told: bool) -> Outcome:
        assert row.method is not None
        chosen = [row.method.about(one) if told else row.method for one in about]
        budget = Budget(row.retention)
        keep = torch.stack([m.select(video, budget).keep for m, video in zip(chosen, features, strict=True)])
        records = score(comparison.model, apart, features, keep, batch=32)
        return Outcome(row, keep.float().mean().item(), np.array([int(record.correct) for record in records]))

    columns = [[ask(Row(label, m, share), told) for label, (m, told) in rows.items()] for share in shares(run)]
    (dense,) = comparison.run([DENSE])
    words = (
        "Each question has tokens chosen for it alone; it is the mean embedding of its text. Exactly the same number "
        f"of tokens in each column. Dense: {comparison.accuracy(dense):.3f}. In brackets the difference to SharpV."
    )
    lines = ["# Pocket: knowing the question", "", introduction(run, comparison, words), ""]
    facts = [comparison.facts(outcome, column[0]) for column in columns for outcome in column]
    about_all = {**comparison.about, "dense": comparison.accuracy(dense), "rows": facts}
    run.publish("pocket_question", [*lines, *versus_first(comparison, columns)], about_all)


# counting -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def counting(run: Run) -> None:
    """Why pocket counts movers wrongly when little is kept: every object token stays, the rest varies."""
    model, _ = pocket.load()
    whole = evaluation_set(run.videos)
    found = [[q for q in own if q.family == "moving_count" and q.form == "short"][:1] for own in whole.questions]
    chosen = [index for index, own in enumerate(found) if own]
    evaluation = replace(part_of(whole, chosen), questions=[found[index] for index in chosen])
    features = extract_features(model, evaluation)
    objects = torch.stack([torch.from_numpy(motion_labels(e, 8).is_object) for e in evaluation.episodes])
    quarter = torch.stack([SharpV().select(video, Budget(0.25)).keep for video in features])
    facts = []
    for label, base in (("all object tokens", objects.view(features.shape[:3])), ("SharpV, 25 % kept", quarter)):
        for others in (0, 50) if run.smoke else (0, 20, 50, 100, 200, 300):
            keep = with_others(base, others)
            errors = count_errors(model, evaluation, features, keep)
            facts.append(
                {"tokens": label, "others": others, "kept": keep.sum().item() / len(keep),
                 "right": (errors == 0).float().mean().item(), "error": errors.float().mean().item()}
            )  # fmt: skip
    head = ["tokens", "random others", "kept, mean", "right", "answered minus true, mean"]
    rows = [[f["tokens"], f["others"], f"{f['kept']:.0f}", f"{f['right']:.3f}", f"{f['error']:+.2f}"] for f in facts]
    words = (
        f'"How many objects move?", {len(evaluation)} videos of 8 frames (392 visual tokens). Every token that shows '
        f"an object stays, or SharpV's quarter does; random others are added. Written by {run.command}."
    )
    page = ["# Pocket: why it counts movers wrongly when little is kept", "", words, "", *table(head, rows)]
    run.publish("pocket_counting", page, {"videos": len(evaluation), "rows": facts})


def with_others(base: Tensor, others: int) -> Tensor:
    """The tokens of ``base`` ``(videos, T, N)`` and so many random ones of the rest."""
    draw = torch.rand(base.shape, generator=torch.Generator().manual_seed(0)).masked_fill(base, -1.0).flatten(1)
    threshold = draw.sort(dim=1, descending=True).values[:, others, None]
    return base | ((draw > threshold) & (draw >= 0)).view_as(base)


def count_errors(model: Any, evaluation: EvaluationSet, features: Tensor, keep: Tensor) -> Tensor:
    """Answered minus true count of each video."""
    phrasing, words, errors = pocket_phrasing(), vocabulary(), []
    for asked, video, kept in zip(evaluation.questions, features, keep, strict=True):
        packed = pack([tokenise(asked, phrasing)])
        prefix = prefix_of(video.flatten(0, 1)[None], kept.flatten()[None], head=len(phrasing.head))
        hidden, _ = forward(model, prefix, packed, phrasing=phrasing)
        place = (packed.target[0] != IGNORE).nonzero()[0, 0]
        errors.append(int(words[int(model.lm_head(hidden)[0, place].argmax())]) - int(asked[0].answer))
    return torch.tensor(errors)


# ablations ------------------------------------------------------------------------------------------------------------

Change = Callable[[np.ndarray, int], np.ndarray]
CONDITIONED = [
    Row("SharpV, adaptive", SharpV()),
    Row("SharpV, 25 %", SharpV(), 0.25),
    Row("control: random at the adaptive counts", Random(counts_of=SharpV())),
    Row("control: random, 25 %", Random(), 0.25),
]


@dataclass(frozen=True)
class Changed(EvaluationSet):
    """The same questions about videos whose frames were changed."""

    change: Change = lambda frames, index: frames

    def video(self, index: int) -> np.ndarray:
        return self.change(super().video(index), index)

    @classmethod
    def of(cls, evaluation: EvaluationSet, change: Change) -> Changed:
        return cls(evaluation.frames, evaluation.episodes, evaluation.questions, change)


def noisy(frames: np.ndarray, index: int) -> np.ndarray:
    """Independent noise in each frame, a standard deviation of 8 of 255."""
    noise = np.random.default_rng([9, index]).normal(0, 8, frames.shape)
    return (frames + noise).clip(0, 255).astype(np.uint8)


def coarse(side: int) -> Change:
    """A clip of ``side`` x ``side`` pixels, brought to the model's size as a processor does."""

    def change(frames: np.ndarray, index: int) -> np.ndarray:
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        small = interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        large = interpolate(small, size=frames.shape[1:3], mode="bilinear", align_corners=False)
        return large.round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8).numpy()

    return change


def content(run: Run) -> None:
    """Still, one mover, several movers, a camera that pans, a cut, noise in every frame."""
    every = evaluation_set(100 if run.smoke else 1000)

    def movers(episode: Any) -> int:
        return sum(item.role == "mover" for item in episode.items) if episode.kind == "normal" else -1

    def of_kind(fits: Callable[[Any], bool]) -> EvaluationSet:
        return part_of(every, [i for i, episode in enumerate(every.episodes) if fits(episode)][: run.videos])

    conditions = {
        "nothing moves": of_kind(lambda episode: movers(episode) == 0),
        "one mover": of_kind(lambda episode: movers(episode) == 1),
        "two or three movers": of_kind(lambda episode: movers(episode) >= 2),
        "the camera pans": of_kind(lambda episode: episode.kind == "pan"),
        "a cut": of_kind(lambda episode: episode.kind == "cut"),
        "noise in every frame": Changed.of(evaluation_set(run.videos), noisy),
    }
    conditioned(run, "content", conditions.items())


def frames(run: Run) -> None:
    """The same clips in 4 to 128 frames (pocket was trained on 4 to 32)."""
    counts = (4, 8) if run.smoke else (4, 8, 16, 32, 64, 128)
    conditioned(
        run,
        "frames a video",
        ((count, evaluation_set(max(run.videos * 32 // max(count, 32), 1), count)) for count in counts),
    )


def resolution(run: Run) -> None:
    """The clip's own resolution, 14 to 112 pixels a side, brought to the 112 that pocket reads."""
    whole = evaluation_set(run.videos)
    sides = (28, 112) if run.smoke else (14, 28, 56, 84, 112)
    conditions = ((side, Changed.of(whole, coarse(side)) if side < 112 else whole) for side in sides)
    conditioned(run, "pixels a side", conditions)


def conditioned(run: Run, x: str, conditions: Iterable[tuple[Any, EvaluationSet]]) -> None:
    """One line a condition: dense, then what each row loses to it."""
    model = pocket.load()[0]
    rows, facts = [], []
    lines: dict[str, list[tuple[float, float]]] = {"dense": [], **{row.label: [] for row in CONDITIONED}}
    for place, (label, evaluation) in enumerate(conditions):
        comparison = Comparison(model, evaluation, pocket_phrasing())
        dense, *others = comparison.run([DENSE, *CONDITIONED])
        for outcome in (dense, *others):
            facts.append({x: label, **comparison.facts(outcome, dense)})
            value = label if isinstance(label, int) else place
            lines[outcome.row.label].append((value, comparison.accuracy(outcome)))
        counts = [len(evaluation), len(comparison.video), f"{comparison.accuracy(dense):.3f}"]
        rows.append([label, *counts, *(cell(comparison, outcome, dense) for outcome in others)])
        run.say(" | ".join(map(str, rows[-1])))
    head = [x, "videos", "questions", "dense", *(row.label for row in CONDITIONED)]
    ablation(run, x, table(head, rows), facts, lines)


def weight(run: Run) -> None:
    """w of I = T + w S, at 25 % kept and adaptive."""
    values = {value: SharpV(weight=value) for value in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)}
    settings(run, "w", {v: [Row("25 %", method, 0.25), Row("adaptive", method)] for v, method in values.items()})


def threshold(run: Run) -> None:
    """K of manual mode: every token with an importance above K is kept."""
    values = (0.4, 0.8, 1.2, 1.6, 2.0, 2.4)
    settings(run, "K", {v: [Row("manual", SharpV(mode="manual", threshold=v))] for v in values})


def settings(run: Run, x: str, values: dict[float, list[Row]]) -> None:
    """One line a setting, on the same videos."""
    comparison = Comparison(pocket.load()[0], evaluation_set(run.videos), pocket_phrasing())
    (dense,) = comparison.run([DENSE])
    rows, facts = [], []
    lines: dict[str, list[tuple[float, float]]] = {row.label: [] for row in next(iter(values.values()))}
    for value, some in values.items():
        outcomes = list(comparison.run(some))
        for outcome in outcomes:
            facts.append({x: value, **comparison.facts(outcome, dense)})
            lines[outcome.row.label].append((value, comparison.accuracy(outcome)))
        rows.append([value, *(cell(comparison, outcome, dense) for outcome in outcomes)])
    top = f"{run.videos} videos of 8 frames, dense {comparison.accuracy(dense):.3f}."
    ablation(run, x, [top, "", *table([x, *lines], rows)], facts, lines)


def cell(comparison: Comparison, outcome: Outcome, dense: Outcome) -> str:
    difference = comparison.difference(outcome, dense)
    return f"kept {percent(outcome.kept)}: {comparison.accuracy(outcome):.3f} ({difference})"


def ablation(run: Run, x: str, lines: list[str], facts: list[dict[str, Any]], plotted: dict[str, Any]) -> None:
    words = (
        "First stage, mean exact match over the question families that the videos have; in brackets the difference to "
        f"the dense model on the same videos in points, with its paired 95 % interval. Written by {run.command}."
    )
    name = f"pocket_ablation_{run.study}"
    run.publish(name, [f"# Pocket: {run.study}", "", words, "", *lines], facts)
    run.draw(name, plotted, x, "mean accuracy", shares=False)


STUDIES = {
    "methods": Study(methods, 1000, plots=True),
    "accuracy": Study(accuracy, 1000),
    "metrics": Study(metrics, 1000),
    "plus": Study(plus, 1000),
    "encode": Study(encode, 1000),
    "question": Study(question, 200),
    "counting": Study(counting, 400, smoke=8),
    "content": Study(content, 60, plots=True),
    "frames": Study(frames, 60, plots=True),
    "resolution": Study(resolution, 60, plots=True),
    "weight": Study(weight, 200, plots=True),
    "threshold": Study(threshold, 200, plots=True),
}

if __name__ == "__main__":
    typer.run(script("first_stage.py", STUDIES))
