"""The demonstration: an embedded model answers questions about a sample clip, dense and with SharpV."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import embedded as models
from .. import pocket
from ..asking import Answer, answer, encode, load
from ..door import apply
from ..evaluation import worlds
from ..evaluation.worlds import World
from ..pocket.questions import Question as Asked
from ..report import Report
from ..video import read_video
from ..video.clip import Clip
from ..view import page as pages
from .terminal import printable

QUESTIONS = 7
BAR = 28
SETTING = (
    "SharpV as published, first stage (w = 1, the content decides how much), original positions. The second stage is "
    "off (docs/findings.md says why)."
)


@dataclass(frozen=True)
class Question:
    """One question with its true answer and both models' answers."""

    text: str
    truth: str
    dense: Answer
    pruned: Answer
    report: Report


@dataclass(frozen=True)
class Demonstration:
    """Everything that was seen."""

    model: str
    parameters: int
    clip: Clip
    questions: list[Question]

    @property
    def report(self) -> Report:
        """What was kept for the last question; the method does not look at questions."""
        return self.questions[-1].report

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "model": self.model,
            "clip": {"name": self.clip.source.name, "frames": len(self.clip.frames), "duration": self.clip.duration},
            "setting": SETTING,
            "questions": [
                {"text": each.text, "truth": each.truth, "dense": asdict(each.dense), "pruned": asdict(each.pruned)}
                for each in self.questions
            ],
            "report": self.report.to_dict(),
        }


def run(name: str = "mover", embedded: str = "pocket") -> Demonstration:
    """Decode the clip, ask each question dense and pruned, in turn, after one run of each to warm up.

    Raises:
        ValueError: an unknown clip or model, packages that the model needs.
    """
    if embedded not in models.names():
        raise ValueError(f"the demo's models are {' and '.join(models.names())}, got {embedded!r}")
    path = pocket.sample_clip(name)
    facts = json.loads(path.with_suffix(".json").read_text())
    clip = read_video(path, frames=facts["frames"])
    model, processor = load(embedded)
    asked = [_spoken(question, worlds.of(processor)) for question in _pick(facts["questions"])]
    questions = []
    for index, question in enumerate([asked[0], *asked]):
        inputs = encode(model, processor, clip, question["prompt"])
        dense = answer(model, processor, inputs)
        with apply(model) as pruning:
            pruned = answer(model, processor, inputs)
        assert pruning.report is not None
        if index:
            questions.append(Question(question["prompt"], question["answer"], dense, pruned, pruning.report))
    return Demonstration(embedded, model.num_parameters(), clip, questions)


def write(demonstration: Demonstration, path: Path | None) -> Path:
    """The page; without a path a temporary file, since one in the current folder would lie in somebody's clone."""
    if path is None:
        with tempfile.NamedTemporaryFile(prefix="sharpv-demo-", suffix=".html", delete=False) as file:
            path = Path(file.name)
    asked = [
        pages.Asked(each.report, each.text, each.pruned, each.dense, each.truth) for each in demonstration.questions
    ]
    path.write_text(pages.page(asked, demonstration.clip), encoding="utf-8")
    return path


def _pick(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One question of each family, the longest answers last."""
    families: dict[str, dict[str, Any]] = {}
    for question in questions:
        families.setdefault(question["family"], question)
    chosen = sorted(families.values(), key=lambda question: len(question["answer"]))
    return chosen[: QUESTIONS - 1] + chosen[-1:] if len(chosen) > QUESTIONS else chosen


def _spoken(question: dict[str, Any], world: World | None) -> dict[str, Any]:
    """The question asked for a sentence, where the model speaks and it has one."""
    sentence = world.sentence(Asked(**question)) if world is not None else None
    return question if sentence is None else {**question, "prompt": sentence.prompt, "answer": sentence.answer}


def show(demonstration: Demonstration, console: Console) -> None:
    """Print it for a person."""
    clip, report = demonstration.clip, demonstration.report
    console.print(
        f"[bold]{clip.source.name}[/]: {clip.duration:.1f} s, {len(clip.frames)} frames, decoded from mp4; "
        f"model: {demonstration.model}, {demonstration.parameters / 1e6:.1f} million parameters"
    )
    console.print(f"[dim]{SETTING}[/]\n")
    (video,) = report.videos
    size = video.tokens_per_frame
    full, empty = printable("█", "#"), printable("░", "-")
    for frame, kept in enumerate(video.kept_per_frame, 1):
        filled = round(BAR * kept / size)
        bar = f"[green]{full * filled}[/][dim]{empty * (BAR - filled)}[/]"
        console.print(f"  frame {frame:2d} {bar} {kept:2d} of {size} visual tokens kept")
    table = Table("question", "dense", "SharpV", "truth", box=None, padding=(0, 2, 0, 0))
    for question in demonstration.questions:
        table.add_row(
            escape(question.text),
            _judged(question.dense.text, question.truth),
            _judged(question.pruned.text, question.truth),
            escape(question.truth),
        )
    console.print()
    console.print(table)
    dense = sum(question.dense.seconds for question in demonstration.questions)
    pruned = sum(question.pruned.seconds for question in demonstration.questions)
    console.print(f"\n[bold]{escape(str(report))}[/]", soft_wrap=True)
    console.print(f"time of all answers, on this machine: dense {dense:.2f} s, SharpV {pruned:.2f} s", soft_wrap=True)


def _judged(text: str, truth: str) -> str:
    return f"[green]{escape(text)}[/]" if text == truth else f"[red]{escape(text)}[/]"
