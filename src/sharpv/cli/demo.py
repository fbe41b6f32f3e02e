"""The demonstration: an embedded model answers questions about a sample clip, dense and with SharpV."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import embedded as models
from .. import pocket
from ..asking import Answer, answer, encode, load
from ..config import Config
from ..door import apply
from ..evaluation import worlds
from ..evaluation.worlds import World
from ..pocket.questions import Question as Asked
from ..report import Report
from ..video import read_video
from ..video.clip import Clip
from ..view import page as pages
from ..words import percent, size
from .terminal import printable

QUESTIONS = 7
FRAMES = 32
"""As many as pocket was trained on."""
SETTING = Config("sharpv+", retention=0.12, encode="kept")
NAME = "sharpv+, kept 12 %"
NEXT = (
    'sharpv ask YOUR_CLIP "What happens?" --model Qwen/Qwen2.5-VL-3B-Instruct --retention 0.25 --report kept.html',
    "sharpv app",
)
"""What a user would type next."""
LEVELS = "▁▂▃▄▅▆▇█", "12345678"


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
            "setting": str(SETTING),
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
    clip = read_video(path, frames=FRAMES)
    model, processor = load(embedded)
    asked = [_spoken(question, worlds.of(processor)) for question in _pick(facts["questions"])]
    questions = []
    for index, question in enumerate([asked[0], *asked]):
        inputs = encode(model, processor, clip, question["prompt"])
        dense = answer(model, processor, inputs)
        with apply(model, SETTING) as pruning:
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
    clip, report, asked = demonstration.clip, demonstration.report, demonstration.questions
    console.print(
        f"[bold]{clip.source.name}[/], {clip.duration:.1f} s, {len(clip.frames)} frames; "
        f"[bold]{demonstration.model}[/] "
        f"({demonstration.parameters / 1e6:.1f} million parameters) knows only a small synthetic world",
        soft_wrap=True,
    )
    console.print(f"[dim]dense, and pruned: {escape(str(SETTING))}[/]\n", soft_wrap=True)
    table = Table("question", "dense", NAME, "right answer", box=None, padding=(0, 2, 0, 0))
    for question in asked:
        said = (_judged(each.text, question.truth) for each in (question.dense, question.pruned))
        table.add_row(escape(question.text), *said, escape(question.truth))
    console.print(table)
    (video,) = report.videos
    console.print(f"\nkept of each frame, in time:  [green]{_spark(video.kept_per_frame)}[/]\n")
    console.print(_figures(asked, report))
    console.print(
        "[dim]A model this small spends little on its language model; docs/explanation/speed.md has large ones.[/]",
        soft_wrap=True,
    )


def _figures(asked: Sequence[Question], report: Report) -> Table:
    """Dense beside pruned: what was right, what was read, how long it took."""
    dense, pruned = ([getattr(each, name) for each in asked] for name in ("dense", "pruned"))
    table = Table("", "dense", NAME, box=None, padding=(0, 2, 0, 0))
    right = (sum(said.text == each.truth for said, each in zip(some, asked, strict=True)) for some in (dense, pruned))
    table.add_row("right answers", *(f"{count} of {len(asked)}" for count in right))
    table.add_row("visual tokens", f"{report.total:,}", f"{report.kept:,} (kept {percent(report.retention)})")
    table.add_row("patches through the vision tower", "100.0 %", percent(report.encoded))
    for label, value in (("time to first token", "first_token"), ("of that, vision", "vision")):
        table.add_row(
            label, *(f"{1000 * median(getattr(said, value) for said in some):.0f} ms" for some in (dense, pruned))
        )
    if report.kv_bytes is not None and report.dense_kv_bytes is not None:
        table.add_row("KV cache at the end", size(report.dense_kv_bytes), size(report.kv_bytes))
    return table


def _spark(counts: Sequence[int]) -> str:
    """A letter a frame, the higher the more it keeps."""
    letters = LEVELS[0] if printable(LEVELS[0], "") else LEVELS[1]
    most = max(*counts, 1)
    return "".join(letters[(len(letters) - 1) * count // most] for count in counts)


def _judged(text: str, truth: str) -> str:
    return f"[green]{escape(text)}[/]" if text == truth else f"[red]{escape(text)}[/]"
