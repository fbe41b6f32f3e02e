"""What happens inside the model, the way a user runs it: processor, sharpv.apply, generate, exact match of the text.

    python benchmarks/through_generate.py inside|memory|calibrated [--videos N] [--model pocket|smol] [--smoke]

Each row is placed by what all layers together keep of visual tokens x layers, the same unit for all, and by stored
bytes. Intervals by bootstrap over videos, paired with dense. Pages go to docs/results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer
from common import Asked, Run, Study, asked, percent, script, table
from second_stage import calibrated_on_others

import sharpv
from sharpv import Config, Contribution, CosineThreshold
from sharpv.asking import answer
from sharpv.evaluation.scoring import EvaluationSet, evaluation_set, prompt_inputs
from sharpv.evaluation.statistics import interval, resamples
from sharpv.kvcache import VTW, FastV, LayerView
from sharpv.pocket.questions import Question

GROUPS = ("1 token", "2 to 9 tokens", "10 tokens and more")
CAPTIONS = 2
SHARE_OF_SHORT = 0.25
"""Answers of one token are many: they are asked about so many of the videos only."""
WHOLE = Config(retention=1.0)
MANY = Contribution(kv_budget=0.8)


@dataclass(frozen=True)
class Only(CosineThreshold):
    """Forgets one layer, whatever its cosine."""

    layer: int = 0

    def measure(self, layer: LayerView) -> Any:
        return super().measure(layer) + (2 if layer.index != self.layer else -2)


@dataclass
class Outcome:
    """What every row made of the same questions, by video and group."""

    asked: np.ndarray
    """(videos, groups) questions."""
    right: dict[str, np.ndarray]
    """(videos, groups) right answers of each row."""
    facts: dict[str, np.ndarray]
    """(videos, 1) the share of right facts, summed over the captions."""
    kept: dict[str, list[tuple[float, float, float]]]
    """Of each row and question: visual tokens x layers, KV bytes, layers that forget."""
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    """Of each row with a criterion, what it measured in each layer, a list per question."""


def ask_all(
    run: Run,
    network: Asked,
    evaluation: EvaluationSet,
    questions_of: Callable[[int], list[Question]],
    rows: Mapping[str, Config],
) -> Outcome:
    """Ask every question once for each row."""
    shape = (len(evaluation), len(GROUPS))
    outcome = Outcome(
        np.zeros(shape),
        {name: np.zeros(shape) for name in rows},
        {name: np.zeros((len(evaluation), 1)) for name in rows},
        {name: [] for name in rows},
    )
    for index in run.track(range(len(evaluation)), "asking"):
        clip = evaluation.video(index)
        for question in questions_of(index):
            group = group_of(network, question)
            inputs = prompt_inputs(network.processor, clip, question.prompt)
            outcome.asked[index, group] += 1
            for name, config in rows.items():
                with sharpv.apply(network.model, config) as pruning:
                    said = answer(network.model, network.processor, inputs)
                report = pruning.report
                assert report is not None and report.kv_retention is not None
                outcome.right[name][index, group] += said.text == question.answer
                if group == CAPTIONS:
                    outcome.facts[name][index, 0] += right_facts(said.text, question.answer)
                forgotten = float(sum(any(row) for row in report.forgotten))
                outcome.kept[name].append((report.layer_retention, report.kv_retention, forgotten))
                if report.measured:
                    outcome.curves.setdefault(name, []).append([row[0] if row else np.nan for row in report.measured])
    return outcome


def right_facts(said: str, truth: str) -> float:
    """How far a caption's sentences are the true ones: twice the common ones over all (F1), which moves with each.

    >>> right_facts("a dog runs. a cat sits.", "a dog runs. it is sunny.")
    0.5
    """
    own, true = ({part.strip() for part in text.split(".") if part.strip()} for text in (said, truth))
    return 2 * len(own & true) / max(len(own) + len(true), 1)


def group_of(network: Asked, question: Question) -> int:
    """Index in GROUPS."""
    length = network.length(question)
    return 0 if length == 1 else 1 if length < 10 else 2


def page(run: Run, outcome: Outcome, title: str, closing: str) -> tuple[list[str], list[dict[str, Any]]]:
    """The Markdown page and its figures."""
    groups = {group: name for group, name in enumerate(GROUPS) if outcome.asked[:, group].any()}
    draws = resamples(len(outcome.asked))
    counts = ", ".join(f"{int(outcome.asked[:, group].sum())} answers of {name}" for group, name in groups.items())
    rows, facts = [], []
    dense: np.ndarray | None = None
    captions = [CAPTIONS] if CAPTIONS in groups else []
    for name, hits in outcome.right.items():
        accuracy = (draws @ hits) / np.maximum(draws @ outcome.asked, 1)
        facts_right = draws @ outcome.facts[name] / np.maximum(draws @ outcome.asked[:, [CAPTIONS]], 1)
        dense = np.hstack([accuracy, facts_right]) if dense is None else dense
        accuracy = np.hstack([accuracy, facts_right])
        columns = [*groups, *(len(GROUPS) for _ in captions)]
        differences = [interval(100 * (accuracy - dense)[:, column]) for column in columns]
        layers, stored, forgetting = np.mean(outcome.kept[name], axis=0)
        cells = [
            f"{accuracy[0, column]:.3f}" + f" ({difference})" * bool(facts)
            for column, difference in zip(columns, differences, strict=True)
        ]
        rows.append([name, percent(layers), percent(stored), f"{forgetting:.1f}", *cells])
        facts.append(
            {"row": name, "layer_retention": float(layers), "kv_retention": float(stored), "layers": float(forgetting),
             "accuracy": {label: float(accuracy[0, group]) for group, label in groups.items()}}
        )  # fmt: skip
    head = ["", "visual tokens x layers kept", "KV bytes kept, text included", "layers that forget", *groups.values()]
    head += ["right facts of the long ones"] * len(captions)
    lines = [
        title,
        "",
        f"{run.videos} videos of {run.frames} frames; every question through processor, `sharpv.apply` and `generate`, "
        f"decoded answers matched exactly: {counts}. Right facts: of a caption's sentences and the true ones, twice "
        "the common ones over all. In brackets the difference to dense in points and its paired 95 % "
        f"interval. {closing} Written by {run.command}.",
        "",
        *table(head, rows),
    ]
    return lines, facts


def short_ones_on_a_part(run: Run, network: Asked, evaluation: EvaluationSet) -> Callable[[int], list[Question]]:
    few = run.videos * SHARE_OF_SHORT

    def questions_of(index: int) -> list[Question]:
        questions = [q for q in evaluation.questions[index] if index < few or group_of(network, q) > 0]
        return questions[:2] if run.smoke else questions

    return questions_of


def some(run: Run, rows: dict[str, Config], every: int = 4) -> dict[str, Config]:
    """At the smallest size the first row and every fourth other."""
    return dict(list(rows.items())[::every]) if run.smoke else rows


def inside(run: Run) -> None:
    """FastV, VTW, and the criteria of the second stage, after all tokens."""
    network, evaluation = asked(run.model), evaluation_set(run.videos, run.frames)
    forgetting: dict[str, Any] = {
        **{f"FastV, layer {k}, keeps {percent(r, 0)}": FastV(k, r) for k in (1, 2, 3) for r in (0.5, 0.25)},
        **{f"VTW, layer {k}": VTW(k) for k in (2, 3, 4)},
        **{f"paper's rule, M = {m}": m for m in (0.2, 0.25, 0.3)},
        **{
            f"contribution, {rows} row{'s' * (rows > 1)}, keeps {percent(share, 0)} of the layers": Contribution(
                kv_budget=share, rows=rows
            )
            for rows in (1, 4)
            for share in (0.8, 0.6)
        },
        **{f"contribution below {t}": Contribution(threshold=t) for t in (0.1, 0.2)},
    }
    rows = {"dense": WHOLE, **{name: replace(WHOLE, memory=memory) for name, memory in forgetting.items()}}
    rows |= {f"SharpV first stage alone, keeps {percent(share, 0)}": Config(retention=share) for share in (0.5, 0.25)}
    outcome = ask_all(run, network, evaluation, short_ones_on_a_part(run, network, evaluation), some(run, rows))
    words = "An answer of one token is read at prefill, which FastV and VTW change and the second stage does not."
    name = Path(run.model).name
    run.publish(f"{name}_inside", *page(run, outcome, f"# {name.capitalize()}: inside the language model", words))


def memory(run: Run) -> None:
    """The degradation curve per layer, and what M, or one layer alone, does to short and to long answers."""
    network, evaluation = asked(run.model), evaluation_set(run.videos, run.frames)
    layers = len(network.model.get_decoder().layers)
    first = {"all tokens": WHOLE, "SharpV adaptive": Config()}
    rules = (None, 0.2, 0.25, 0.3, 0.35, 0.4)
    rows = {
        f"{tokens}, {'nothing forgotten' if m is None else f'M = {m}'}": replace(config, memory=m)
        for tokens, config in first.items()
        for m in rules
    }
    rows |= {f"all tokens, forgets layer {i}": replace(WHOLE, memory=Only(0.0, i)) for i in range(layers)}
    outcome = ask_all(run, network, evaluation, short_ones_on_a_part(run, network, evaluation), some(run, rows))
    words = "M is the paper's rule; the last rows forget one layer each, whatever its similarity."
    lines, facts = page(run, outcome, "# Pocket: the second stage", words)
    curves = {name: np.nanmean(own, axis=0).tolist() for name, own in outcome.curves.items() if "layer" not in name}
    head = ["similarity of the visual tokens' input to layer l with their own first input", *range(layers)]
    lines += ["", *table(head, [[name, *(f"{value:.3f}" for value in own)] for name, own in curves.items()])]
    run.publish("pocket_memory", lines, {"rows": facts, "curves": curves})


def calibrated(run: Run) -> None:
    """What the second stage frees in stored bytes, and what it costs: the paper's rule, contributions, calibrate."""
    network, evaluation = asked(run.model), evaluation_set(run.videos, run.frames)
    retention = run.retention or 0.12
    tolerances = (0.03,) if run.smoke else (0.01, 0.03)
    found = {t: calibrated_on_others(network, retention, 1 if run.smoke else 4, tolerance=t) for t in tolerances}
    forgetting: dict[str, Any] = {
        "nothing forgotten": None,
        **{f"paper's rule, M = {m}": m for m in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)},
        **{f"contribution, keeps {percent(s, 0)} of the layers": Contribution(kv_budget=s) for s in (0.6, 0.2)},
        **{
            f"calibrated, tolerance {t:g}: keeps layers {', '.join(map(str, one.keep))}": one.config.second
            for t, one in found.items()
        },
    }
    share = f"kept {100 * retention:g} %"
    rows = {"dense": WHOLE}
    rows |= {f"{share}; {name}": Config(retention=retention, memory=rule) for name, rule in forgetting.items()}

    def questions_of(index: int) -> list[Question]:
        return network.several(evaluation, index)[: 2 if run.smoke else None]

    outcome = ask_all(run, network, evaluation, questions_of, some(run, rows, 9))
    name = Path(run.model).name
    title = f"# {name.capitalize()}: what the second stage frees"
    run.publish(f"{name}_memory" if name != "pocket" else "pocket_calibrated", *page(run, outcome, title, ""))


STUDIES = {"inside": Study(inside, 100), "memory": Study(memory, 100), "calibrated": Study(calibrated, 20)}

if __name__ == "__main__":
    typer.run(script("through_generate.py", STUDIES))
