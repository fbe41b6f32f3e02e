"""The command line: thin, on top of :mod:`sharpv.asking` and the door."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
out, err = Console(), Console(stderr=True)

DEFAULT_FRAMES = 8
MEMORY_HELP = (
    "Second stage: the paper's threshold M (0.2), the layers that keep the video as 'sharpv calibrate' finds them "
    "(layers:0+23+24), or 'off'. Off here, unlike in the library: a low similarity does not mean that a layer is not "
    "needed for long answers (docs/findings.md)."
)
STILL_HELP = (
    "Do not encode frames that differ from the last encoded one by no more than this; 0: equal ones. Else all are."
)


def fail(message: object) -> NoReturn:
    """One sentence on stderr, exit code 2."""
    err.print(f"[bold red]error:[/] {escape(' '.join(str(message).split()))}", soft_wrap=True)
    raise typer.Exit(2)


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner on a terminal, nothing elsewhere; wrong input ends in :func:`fail`."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        with err.status(text) if err.is_terminal else _quiet():
            yield
    except (ValueError, TypeError, OSError) as error:
        fail(error)


@contextmanager
def _quiet() -> Iterator[None]:
    yield


@app.command()
def demo(
    clip: Annotated[str, typer.Option(help="Sample clip: mover, cut or static.")] = "mover",
    model: Annotated[str, typer.Option(help="'pocket', or 'smol', which speaks in sentences.")] = "pocket",
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """The embedded model on a sample clip: dense and SharpV side by side."""
    from . import demo as demonstration

    with working(f"asking {model}, dense and pruned"):
        result = demonstration.run(clip, model)
    if json_output:
        typer.echo(json.dumps(result.to_dict()))
    else:
        demonstration.show(result, out)


@app.command()
def ask(
    video: Annotated[Path, typer.Argument(help="Any clip that FFmpeg reads.", show_default=False)],
    question: Annotated[str, typer.Argument(help="What to ask about it.", show_default=False)],
    model: Annotated[str, typer.Option(help="'pocket', 'smol', a local directory or a hub id.")] = "pocket",
    method: Annotated[str, typer.Option(help="See 'sharpv methods'.")] = "sharpv",
    retention: Annotated[float | None, typer.Option(help="Kept share in (0, 1]; else the content decides.")] = None,
    memory: Annotated[str, typer.Option(help=MEMORY_HELP)] = "off",
    max_tokens: Annotated[int | None, typer.Option(help="Ceiling on kept visual tokens.")] = None,
    frames: Annotated[int | None, typer.Option(help=f"Frames to sample ({DEFAULT_FRAMES} unless --fps).")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second to sample, instead of --frames.")] = None,
    still: Annotated[float | None, typer.Option(help=STILL_HELP)] = None,
    frames_at_once: Annotated[int | None, typer.Option(help="Frames in the vision tower at a time; else all.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")] = "auto",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 128,
    compare: Annotated[bool, typer.Option(help="Also answer without pruning.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask a question about a video, with pruning."""
    from . import apply, asking
    from .criteria import read_memory
    from .video import read

    options: dict[str, Any] = {"retention": retention, "max_tokens": max_tokens}
    options |= {"still": still, "frames_at_once": frames_at_once}
    with working("checking"):
        options["memory"] = read_memory(memory)
        asking.check(method, **options)
    with working("reading the clip"):
        clip = read(video, frames=DEFAULT_FRAMES if frames is None and fps is None else frames, fps=fps)
    with working("loading the model"):
        loaded, processor = asking.load(model, device, dtype)
    with working("thinking"):
        inputs = asking.encode(loaded, processor, clip, question)
        dense = asking.answer(loaded, processor, inputs, max_new_tokens) if compare else None
        with apply(loaded, method, **options) as pruning:
            pruned = asking.answer(loaded, processor, inputs, max_new_tokens)
    report = pruning.report
    assert report is not None
    if json_output:
        answers = {"pruned": vars(pruned)} | ({"dense": vars(dense)} if dense else {})
        facts = {"frames": len(clip.frames), "duration": clip.duration, "fps": clip.fps}
        typer.echo(json.dumps({"answers": answers, "clip": facts, "report": report.to_dict()}))
        return
    if dense is not None:
        out.print(f"[dim]dense[/]   {escape(dense.text)}  [dim]{dense.seconds:.2f} s[/]")
        out.print(f"[dim]sharpv[/]  {escape(pruned.text)}  [dim]{pruned.seconds:.2f} s[/]")
    else:
        out.print(escape(pruned.text))
    out.print(f"[dim]{escape(str(report))}[/]", soft_wrap=True)
    if model in asking.EMBEDDED:
        err.print(f"[dim]{asking.SMALL_WORLD.format(model)}[/]", soft_wrap=True)
    for warning in report.warnings:
        err.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)


@app.command()
def calibrate(
    videos: Annotated[list[Path], typer.Argument(help="A few clips like those to come.", show_default=False)],
    questions: Annotated[list[str], typer.Option("--question", help="Asked of each clip; several may be given.")],
    model: Annotated[str, typer.Option(help="'pocket', 'smol', a local directory or a hub id.")] = "pocket",
    method: Annotated[str, typer.Option(help="See 'sharpv methods'.")] = "sharpv",
    retention: Annotated[float | None, typer.Option(help="Kept share in (0, 1]; else the content decides.")] = None,
    tolerance: Annotated[float, typer.Option(help="How far answers may move: KL divergence per token, nats.")] = 0.01,
    frames: Annotated[int, typer.Option(help="Frames to sample.")] = DEFAULT_FRAMES,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")] = "auto",
    max_new_tokens: Annotated[int, typer.Option(min=2, help="Longest answer.")] = 48,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the layers that must keep the video, for --memory: the model answers, and each layer forgets in turn."""
    from . import asking, calibration
    from .video import read

    with working("checking"):
        calibration.require(method, tolerance)
        asking.check(method, memory=None, retention=retention, max_tokens=None, still=None, frames_at_once=None)
    with working("reading the clips"):
        clips = [read(video, frames=frames) for video in videos]
    with working("loading the model"):
        loaded, processor = asking.load(model, device, dtype)
    with working("answering, once per layer"):
        asked = [asking.encode(loaded, processor, clip, question) for clip in clips for question in questions]
        prompts = [inputs.to(loaded.device, loaded.dtype) for inputs in asked]
        limits: dict[str, Any] = {"tolerance": tolerance, "max_new_tokens": max_new_tokens, "retention": retention}
        found = calibration.calibrate(loaded, prompts, method, **limits)
    if json_output:
        harms = [None if math.isnan(harm) else harm for harm in found.harm]
        typer.echo(json.dumps({**vars(found), "harm": harms, "memory": list(found.memory.keep)}))
        return
    table = Table("layer", "harm when it forgets", box=None)
    for layer, harm in enumerate(found.harm):
        kept = layer in found.memory.keep
        table.add_row(str(layer), f"{harm:.2g}" + (" keeps the video" if kept else ""), style="bold" if kept else "dim")
    out.print(table)
    measured = f"mean KL in nats over {found.tokens} tokens of {found.answers} answers"
    rest = f"{found.together:.2g} when all but {len(found.memory.keep)} of {len(found.harm)} layers forget"
    out.print(f"[dim]{measured}; {rest}[/]", soft_wrap=True)
    out.print(f"--memory layers:{'+'.join(map(str, found.memory.keep))}")


@app.command("eval")
def evaluate(
    methods: Annotated[str, typer.Option(help="Names, separated by commas; see 'sharpv methods'.")] = "sharpv,random",
    retentions: Annotated[str, typer.Option(help="Kept shares, separated by commas.")] = "0.5,0.25,0.12",
    videos: Annotated[int, typer.Option(min=1, max=1000, help="The first n of pocket's evaluation videos.")] = 100,
    frames: Annotated[int, typer.Option(min=4, max=32, help="Frames a video.")] = 8,
    model: Annotated[str, typer.Option(help="'pocket', 'smol', or a directory with either.")] = "pocket",
    folder: Annotated[Path | None, typer.Option("--out", help="Keep finished rows here, to continue later.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw accuracy against the kept share: .svg or .png.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare methods on pocket's evaluation videos: who still answers what, with paired 95 % intervals."""
    from . import comparison
    from . import plot as plotting

    with working("checking"):
        if plot is not None:
            plotting.check(plot)
        rows = comparison.grid(methods.split(","), _numbers("--retentions", retentions))
    with working("looking at the videos"):
        compared = comparison.prepare(model, videos, frames, folder, device)
    with Progress(console=err, disable=not err.is_terminal) as progress:
        outcomes = list(progress.track(compared.run(rows), len(rows), description="answering"))
    page = comparison.markdown(compared, outcomes)
    if folder is not None:
        (folder / "table.md").write_text(page)
    if plot is not None:
        curves = comparison.curves(compared, outcomes[1:])
        with working("drawing"):
            top = compared.accuracy(outcomes[0])
            plotting.draw(plot, curves, "visual tokens before the LLM", "mean accuracy", ("dense", top))
    if json_output:
        typer.echo(
            json.dumps({**compared.about, "rows": [compared.facts(outcome, outcomes[0]) for outcome in outcomes]})
        )
    else:
        out.print(Markdown(page))


@app.command()
def methods() -> None:
    """The pruning methods and their parameters."""
    from dataclasses import fields

    from .methods import METHODS

    table = Table()
    for heading in ("method", "keeps", "retention", "time grows as", "parameters"):
        table.add_column(heading, overflow="fold")
    for name, method in sorted(METHODS.items()):
        parameters = "\n".join(f"{field.name}={field.default!r}" for field in fields(method))
        summary = f"{method.summary} (arXiv {method.paper})" if method.paper else method.summary
        table.add_row(name, summary, "adaptive or given" if method.adaptive else "given", method.cost, parameters)
    out.print(table)
    out.print(
        "[dim]All but fastv and vtw act before the language model and read no attention. A retention is met exactly.[/]"
    )


@app.command()
def models() -> None:
    """The model families."""
    from .models import FAMILIES

    table = Table()
    for heading in ("family", "model types", "stages", "positions", "tested (tiny random weights)", "for instance"):
        table.add_column(heading, overflow="fold")
    for family in FAMILIES:
        positions = {"1d": "1-D RoPE", "mrope": "multimodal RoPE"}[family.positions]
        stages = "1; 2 where there are keys" if family.hybrid else "1, 2"
        tested = "\n".join(["every mode", *(f"{name}: greedy, beams" for name in family.variants)])
        types, examples = "\n".join(family.model_types), "\n".join(family.examples)
        table.add_row(family.name, types, stages, positions, tested, examples)
    out.print(table)
    out.print("[dim]Modes: docs/modes.md. Versions of transformers: docs/versions.md.[/]")


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        fail(f"{option} takes numbers separated by commas, got {text!r}")
