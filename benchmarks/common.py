"""What every script here shares: studies by name, where their pages go, models and questions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track

from sharpv.asking import load
from sharpv.evaluation import worlds
from sharpv.evaluation.comparison import Comparison, Outcome, prepare
from sharpv.evaluation.packing import Phrasing, tokenise
from sharpv.evaluation.plot import check, draw
from sharpv.evaluation.scoring import EvaluationSet
from sharpv.pocket.questions import Question
from sharpv.view.comparing import comparison_page

RESULTS = Path(__file__).parents[1] / "docs" / "results"


@dataclass(frozen=True)
class Run:
    """One run of a study: what was asked for on the command line."""

    script: str
    study: str
    videos: int
    frames: int
    model: str
    retention: float | None
    folder: Path
    out: Path
    device: str
    smoke: bool

    @property
    def command(self) -> str:
        """What writes the page again."""
        extra = f" --model {self.model}" if self.model != "pocket" else ""
        extra += f" --frames {self.frames}" if self.frames != 8 else ""
        extra += f" --retention {self.retention}" if self.retention is not None else ""
        return f"`python benchmarks/{self.script} {self.study} --videos {self.videos}{extra}`"

    def comparison(self, videos: int | None = None, model: str | None = None) -> Comparison:
        name = model or self.model
        folder = self.folder / self.script.removesuffix(".py") / self.study / Path(name).name
        return prepare(name, videos or self.videos, self.frames, None if self.smoke else folder)

    def track(self, items: Sequence[Any], what: str) -> Any:
        console = Console(stderr=True)
        return track(items, what, console=console, disable=not console.is_terminal)

    def say(self, text: str) -> None:
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)

    def publish(self, name: str, lines: Sequence[str], facts: Any) -> None:
        publish(self.out, name, lines, facts)

    def compare(self, name: str, title: str, facts: Mapping[str, Any]) -> None:
        """Write OUT/NAME.html, of which plot and tables can be handled."""
        (self.out / f"{name}.html").write_text(comparison_page(facts, title), encoding="utf-8")

    def draw(self, name: str, curves: Mapping[str, Any], x: str, y: str, *more: Any, **options: Any) -> None:
        draw(self.out / f"{name}.svg", curves, x, y, *more, **options)


@dataclass(frozen=True)
class Study:
    """A study: what runs, on how many videos by default, and at the smallest size that means anything to the code."""

    run: Callable[[Run], None]
    videos: int = 1000
    smoke: int = 2
    plots: bool = False


def script(file: str, studies: Mapping[str, Study]) -> Callable[..., None]:
    """The command line of a script: ``python benchmarks/FILE STUDY [options]``."""

    def main(
        study: Annotated[str, typer.Argument(help="A wrong name lists them.")],
        videos: Annotated[int | None, typer.Option(help="The first n of the fixed evaluation videos.")] = None,
        frames: Annotated[int, typer.Option(help="Frames a video.")] = 8,
        model: Annotated[str, typer.Option(help="'pocket', 'smol', or a checkpoint of either.")] = "pocket",
        retention: Annotated[
            float | None, typer.Option(help="Kept share of the first stage, where a study asks.")
        ] = None,
        folder: Annotated[Path, typer.Option(help="Finished rows; rerun to resume.")] = Path("runs"),
        out: Annotated[Path, typer.Option(help="Where pages go.")] = RESULTS,
        threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
        device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
        smoke: Annotated[
            bool, typer.Option(help="The smallest size, to see that it runs; pages to --out only.")
        ] = False,
    ) -> None:
        if study not in studies:
            raise typer.BadParameter(f"there is no study {study!r}; there are {', '.join(studies)}")
        chosen = studies[study]
        if smoke and out == RESULTS:
            raise typer.BadParameter("--smoke needs an --out of its own")
        if chosen.plots:
            check(out / "plot.svg")
        torch.set_num_threads(threads)
        size = videos or (chosen.smoke if smoke else chosen.videos)
        chosen.run(Run(file, study, size, frames, model, retention, folder, out, device, smoke))

    return main


@dataclass(frozen=True)
class Asked:
    """An embedded model and how it is asked."""

    model: Any
    processor: Any
    phrasing: Phrasing
    sentence: Callable[[Question], Question | None]

    def several(self, evaluation: EvaluationSet, index: int) -> list[Question]:
        """The questions of a video whose answers have several tokens, asked for a sentence where the model speaks."""
        questions = [self.sentence(question) or question for question in evaluation.questions[index]]
        return [each for each in questions if each.form != "choice" and self.length(each) > 1]

    def length(self, question: Question) -> int:
        """Tokens of the true answer."""
        (tokens,) = tokenise([question], self.phrasing)
        return len(tokens.answer) - 1


def asked(name: str) -> Asked:
    model, processor = load(name, "cpu")
    world = worlds.of(processor)
    assert world is not None, f"{name} does not know pocket's world"
    return Asked(model, processor, world.phrasing(), world.sentence)


def publish(out: Path, name: str, lines: Sequence[str], facts: Any) -> None:
    """Write OUT/NAME.{md,json} and print the page."""
    out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    (out / f"{name}.md").write_text(text)
    (out / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table, line by line."""
    lines = [f"| {' | '.join(map(str, head))} |", "| --- |" + " --- |" * (len(head) - 1)]
    return lines + [f"| {' | '.join(map(str, row))} |" for row in rows]


def part_of(evaluation: EvaluationSet, indices: Sequence[int]) -> EvaluationSet:
    """Some of the videos."""
    return replace(
        evaluation,
        episodes=[evaluation.episodes[index] for index in indices],
        questions=[evaluation.questions[index] for index in indices],
    )


def by_family(columns: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> list[str]:
    cells = [[name, *(f"{column.get(name, float('nan')):.3f}" for column in columns.values())] for name in names]
    return table(["family", *columns], cells)


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def beside(comparison: Comparison, outcome: Outcome, first: Outcome) -> str:
    """A difference in points with its 95 % interval; nothing beside what is compared with itself."""
    return "" if outcome is first else str(comparison.difference(outcome, first))
