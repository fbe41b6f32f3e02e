"""Methods side by side on a fixed evaluation: the same videos, questions, positions and exact budgets.

Every row answers the same questions; what is compared is paired by video. ``sharpv eval`` is this module on the command
line. Only the first stage is compared here: answers are scored with the true answer fed back, which equals greedy
generation, and costs a fraction of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import asking
from ..methods import METHODS, Method, Uniform
from ..methods.budget import Budget
from . import worlds
from .packing import Phrasing
from .scoring import EvaluationSet, Record, evaluation_set, extract_features, score
from .statistics import Interval, interval, resamples

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration


@dataclass(frozen=True)
class Row:
    """One line of a comparison: ``method`` None is the dense model, ``retention`` None leaves it to the content."""

    label: str
    method: Method | None = None
    retention: float | None = None
    positions: str = "original"

    @property
    def key(self) -> str:
        """What was done, in one line: a result is found again by it."""
        return f"{self.method!r} retention={self.retention} positions={self.positions}"


@dataclass(frozen=True)
class Outcome:
    """What a row kept (share of the visual tokens, mean over videos) and which questions it answered."""

    row: Row
    kept: float
    correct: np.ndarray


def grid(methods: Sequence[str], retentions: Sequence[float]) -> list[Row]:
    """Dense, then each method at each retention, and before them at its own where it can decide by itself.

    Raises:
        ValueError: an unknown method, a retention out of range.
    """
    rows = [Row("dense")]
    for name in methods:
        method = METHODS.make(name, "method")
        own = [Row(f"{name}, adaptive", method)] if method.adaptive else []
        rows += own + [Row(name, method, retention) for retention in retentions]
    for retention in retentions:
        Budget(retention)
    return rows


class Comparison:
    """Rows on one model and one evaluation set.

    Args:
        model: a pocket or smol checkpoint.
        evaluation: videos and questions.
        phrasing: how the model is asked.
        folder: where finished rows are kept (``rows.json``); rows found there are not run again.

    Raises:
        ValueError: a folder with rows of other weights, videos or frames.
        OSError: a folder that cannot be made.

    >>> comparison = prepare("pocket", videos=1000)
    >>> dense, quarter = comparison.run([Row("dense"), Row("SharpV", SharpV(), 0.25)])
    >>> comparison.difference(quarter, dense)   # points, with a 95 % interval
    Interval(mean=-6.0, low=-6.5, high=-5.5)
    """

    def __init__(
        self,
        model: LlavaOnevisionForConditionalGeneration,
        evaluation: EvaluationSet,
        phrasing: Phrasing,
        folder: Path | None = None,
    ) -> None:
        self.model, self.evaluation, self.phrasing = model, evaluation, phrasing
        self.store = None if folder is None else folder / "rows.json"
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        asked = [(video, question) for video, some in enumerate(evaluation.questions) for question in some]
        names = ["multiple_choice" if question.form == "choice" else question.family for _, question in asked]
        self.families = sorted(set(names))
        self.video = np.array([video for video, _ in asked])
        self.family = np.array([self.families.index(name) for name in names])
        # the bootstrap draws videos, once for all rows: differences are paired
        videos = len(evaluation)
        self.draws = resamples(videos)
        weights = hashlib.sha256()
        for tensor in model.state_dict().values():
            weights.update(tensor.cpu().float().numpy().tobytes())
        self.about = {
            "videos": videos,
            "frames": evaluation.frames,
            "questions": len(asked),
            "weights": weights.hexdigest()[:16],
        }
        self.finished = self._read()
        self.features = extract_features(model, evaluation)

    def run(self, rows: Sequence[Row]) -> Iterator[Outcome]:
        """One outcome per row, in order; each is stored before the next one starts."""
        for row in rows:
            if row.key not in self.finished:
                method = row.method or Uniform()
                keep, features = keep_masks(method, self.features, row.retention if row.method else 1.0)
                records = score(self.model, self.evaluation, features, keep, row.positions, phrasing=self.phrasing)
                self._write(row, keep.float().mean().item(), records)
            kept, correct = self.finished[row.key]
            yield Outcome(row, kept, correct)

    def accuracy(self, outcome: Outcome) -> float:
        """Mean over question families of the share of right answers."""
        return float(self._means(outcome)[0])

    def by_family(self, outcome: Outcome) -> dict[str, float]:
        """The share of right answers of each family."""
        return {name: float(outcome.correct[self.family == i].mean()) for i, name in enumerate(self.families)}

    def difference(self, outcome: Outcome, other: Outcome) -> Interval:
        """Accuracy minus the other's, in points, and its 95 % interval by bootstrap over videos."""
        return interval(100 * (self._means(outcome) - self._means(other)))

    def facts(self, outcome: Outcome, first: Outcome) -> dict[str, Any]:
        """What was found, for machines."""
        return {
            "label": outcome.row.label,
            "retention": outcome.row.retention,
            "kept": outcome.kept,
            "accuracy": self.accuracy(outcome),
            "difference": self.difference(outcome, first),
            "families": self.by_family(outcome),
        }

    def _means(self, outcome: Outcome) -> np.ndarray:
        """Mean accuracy over families: of all videos, then of each resample."""
        right, asked = np.zeros((2, len(self.evaluation), len(self.families)))
        np.add.at(right, (self.video, self.family), outcome.correct)
        np.add.at(asked, (self.video, self.family), 1)
        count = self.draws @ asked
        share = np.divide(self.draws @ right, count, out=np.full_like(count, np.nan), where=count > 0)
        return np.asarray(np.nanmean(share, axis=1))

    def _read(self) -> dict[str, tuple[float, np.ndarray]]:
        if self.store is None or not self.store.exists():
            return {}
        try:
            stored = json.loads(self.store.read_text(encoding="utf-8"))
            about, rows = stored["about"], stored["rows"]
            finished = {key: (kept, np.array(list(map(int, correct)))) for key, (kept, correct) in rows.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.store} is damaged ({error}): remove it, or choose another folder") from error
        if about != self.about:
            raise ValueError(
                f"{self.store} holds another comparison ({about}, not {self.about}): choose another folder"
            )
        return finished

    def _write(self, row: Row, kept: float, records: Sequence[Record]) -> None:
        self.finished[row.key] = (kept, np.array([int(record.correct) for record in records]))
        if self.store is None:
            return
        rows = {key: (kept, "".join(map(str, correct))) for key, (kept, correct) in self.finished.items()}
        fresh = self.store.with_suffix(".tmp")
        fresh.write_text(json.dumps({"about": self.about, "rows": rows}))
        fresh.replace(self.store)


def prepare(
    model: str | Path = "pocket", videos: int = 1000, frames: int = 8, folder: Path | None = None, device: str = "cpu"
) -> Comparison:
    """A comparison on the first ``videos`` videos of the fixed evaluation; smol is asked for sentences too.

    Raises:
        ValueError: what :func:`sharpv.asking.load` and :class:`Comparison` refuse, and a model of another vocabulary.
    """
    loaded, processor = asking.load(model, device)
    evaluation = evaluation_set(videos, frames)
    world = worlds.of(processor)
    if world is None:
        raise ValueError(
            f"the questions are about pocket's world, which {str(model)!r} does not know: pass pocket or smol"
        )
    return Comparison(loaded, world.asked(evaluation), world.phrasing(), folder)


def markdown(comparison: Comparison, outcomes: Sequence[Outcome]) -> str:
    """The comparison as a Markdown table; the first outcome is what the others are compared with."""
    first = outcomes[0]
    lines = ["| kept before the LLM | method | accuracy | to dense, points |", "| --- | --- | --- | --- |"]
    for outcome in outcomes:
        difference = "" if outcome is first else str(comparison.difference(outcome, first))
        kept, accuracy = f"{100 * outcome.kept:.1f} %", comparison.accuracy(outcome)
        lines.append(f"| {kept} | {outcome.row.label} | {accuracy:.3f} | {difference} |")
    names = [f"{outcome.row.label} {100 * outcome.kept:.0f} %" for outcome in outcomes]
    lines += ["", "| family | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    columns = [comparison.by_family(outcome) for outcome in outcomes]
    for name in comparison.families:
        lines.append(f"| {name} | " + " | ".join(f"{column[name]:.3f}" for column in columns) + " |")
    return "\n".join(lines) + "\n"


def curves(comparison: Comparison, outcomes: Sequence[Outcome], dense: Outcome) -> dict[str, list[tuple[float, ...]]]:
    """Label -> (kept share, accuracy, and the interval of its difference to dense) of its rows."""
    return lines([comparison.facts(outcome, dense) for outcome in outcomes], comparison.accuracy(dense))


def lines(rows: Sequence[Mapping[str, Any]], dense: float) -> dict[str, list[tuple[float, ...]]]:
    """The same from rows as they were stored; what decides by itself how much to keep is a point of its own."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for row in rows:
        _, low, high = row["difference"]
        point = row["kept"], row["accuracy"], dense + low / 100, dense + high / 100
        found.setdefault(row["label"], []).append(point)
    return found


def versus_first(comparison: Comparison, columns: Sequence[Sequence[Outcome]]) -> list[str]:
    """A Markdown table, line by line: a row a label, a column a retention, each cell beside the first of its column."""
    shares = [f"kept {100 * first.kept:.0f} %" for first, *_ in columns]
    lines = ["| | " + " | ".join(shares) + " |", "| --- |" + " --- |" * len(shares)]
    for outcomes in zip(*columns, strict=True):
        cells = []
        for outcome, (first, *_) in zip(outcomes, columns, strict=True):
            difference = "" if outcome is first else f" ({comparison.difference(outcome, first)})"
            cells.append(f"{comparison.accuracy(outcome):.3f}{difference}")
        lines.append(f"| {outcomes[0].row.label} | " + " | ".join(cells) + " |")
    return lines


def keep_masks(method: Method, features: Tensor, retention: float | None) -> tuple[Tensor, Tensor]:
    """What is kept of all videos, ``(videos, T, N, D) -> (videos, T, N)``, and the features that survivors carry."""
    budget = Budget(retention)
    selections = [method.select(video, budget) for video in features]
    carried = [
        video if selection.features is None else selection.features
        for video, selection in zip(features, selections, strict=True)
    ]
    return torch.stack([selection.keep for selection in selections]), torch.stack(carried)
