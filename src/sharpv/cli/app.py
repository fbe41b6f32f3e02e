"""The commands."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..config import Config
from ..embedded import names as embedded_names
from . import lists
from .configured import configured
from .terminal import Json, checking, err, numbers, out, parts, replace_what_cannot_be_printed, working

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)

DEFAULT_FRAMES = 8


@app.callback()
def speak() -> None:
    """Video language models, made fast by dropping redundant visual tokens. No retraining."""
    replace_what_cannot_be_printed()


Model = Annotated[str, typer.Option(help="'pocket', 'smol', a local directory or a hub id.")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...")]
Dtype = Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")]


@app.command()
def demo(
    clip: Annotated[str, typer.Option(help="Sample clip: mover, cut or static.")] = "mover",
    model: Annotated[str, typer.Option(help="'pocket', or 'smol', which speaks in sentences.")] = "pocket",
    page: Annotated[
        Path | None, typer.Option("--report", help="Where to write the page; a temporary file if not said.")
    ] = None,
    json_output: Json = False,
) -> None:
    """The embedded model on a sample clip: dense and SharpV side by side."""
    from . import demo as demonstration

    with checking():
        _require_page(page)
    with working(f"asking {model}, dense and pruned"):
        result = demonstration.run(clip, model)
    if json_output:
        typer.echo(json.dumps(result.to_dict()))
    else:
        demonstration.show(result, out)
    if page is not None or not json_output:
        with checking():
            written = demonstration.write(result, page)
        said = err if json_output else out
        if not json_output:
            lines = "\n  ".join(map(escape, demonstration.NEXT))
            out.print(f"\n[bold]On a clip of your own:[/]\n  {lines}", soft_wrap=True)
        said.print(f"\n[bold]what was kept, to look at:[/] {escape(written.resolve().as_uri())}", soft_wrap=True)


@app.command()
@configured()
def ask(
    video: Annotated[Path, typer.Argument(help="Any clip that FFmpeg reads.", show_default=False)],
    question: Annotated[str, typer.Argument(help="What to ask about it.", show_default=False)],
    config: Config,
    model: Model = "pocket",
    frames: Annotated[int | None, typer.Option(help=f"Frames to sample ({DEFAULT_FRAMES} unless --fps).")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second to sample, instead of --frames.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 128,
    compare: Annotated[bool, typer.Option(help="Also answer without pruning.")] = False,
    check_encoding: Annotated[
        bool, typer.Option(help="Also encode every patch, and show how far --encode moves the features.")
    ] = False,
    page: Annotated[Path | None, typer.Option("--report", help="Write a page that shows what was kept: .html.")] = None,
    json_output: Json = False,
) -> None:
    """Ask a question about a video, with pruning."""
    with checking():
        from ..video import read_video

        if not question.strip():
            raise ValueError(f"a question must hold some text, got {question!r}")
        if check_encoding and config.encoding.rule is None:
            raise ValueError("--check-encoding has nothing to check: pass --encode changed or kept")
        _require_page(page)
        clip = read_video(video, frames=DEFAULT_FRAMES if frames is None and fps is None else frames, fps=fps)
        if frames is not None and len(clip.frames) < frames:
            err.print(f"[dim]the clip has {len(clip.frames)} frames, all of them are read; {frames} were asked for[/]")
    with working("loading the model"):
        from .. import apply, asking

        loaded, processor = asking.load(model, device, dtype)
    with working("thinking"):
        inputs = asking.encode(loaded, processor, clip, question)
        dense = asking.answer(loaded, processor, inputs, max_new_tokens) if compare else None
        with apply(loaded, config) as pruning:
            pruned = asking.answer(loaded, processor, inputs, max_new_tokens)
        checked = None
        if check_encoding:
            from .. import encoding_check

            checked = encoding_check.check_encoding(loaded, inputs.to(loaded.device, loaded.dtype), config)
    report = pruning.report
    assert report is not None
    note = asking.SMALL_WORLD.format(model) if model in embedded_names() else ""
    if page is not None:
        with checking():
            report.save(page, clip, question=question, answer=pruned, dense=dense, note=note)
    if json_output:
        answers = {"pruned": vars(pruned)} | ({"dense": vars(dense)} if dense else {})
        facts = {"frames": len(clip.frames), "duration": clip.duration, "fps": clip.fps}
        more = {} if checked is None else {"encoding_check": vars(checked)}
        typer.echo(json.dumps({"answers": answers, "clip": facts, "report": report.to_dict(), **more}))
        return
    if dense is not None:
        for name, said in (("dense", dense), ("sharpv", pruned)):
            out.print(f"[dim]{name:<6}[/]  {escape(said.text)}")
            out.print(
                f"[dim]        {said.vision:.2f} s vision, {said.first_token - said.vision:.2f} s prefill, "
                f"{said.seconds:.2f} s in all[/]"
            )
    else:
        out.print(escape(pruned.text))
    out.print(f"[dim]{escape(str(report))}[/]", soft_wrap=True)
    if pruned.cut:
        err.print(f"[dim]cut after {pruned.tokens} tokens: --max-new-tokens allows more[/]")
    if checked is not None:
        out.print(f"[dim]check: {escape(str(checked))}[/]", soft_wrap=True)
    if note:
        err.print(f"[dim]{note}[/]", soft_wrap=True)
    for warning in report.warnings:
        err.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    if page is not None:
        err.print(f"[dim]what was kept, to look at: {escape(str(page))}[/]", soft_wrap=True)


@app.command("app")
def serve(
    model: Model = "pocket",
    host: Annotated[
        str, typer.Option(help="Where to listen; the default is reached from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The first free one from 7860 if not said.")
    ] = None,
    max_megabytes: Annotated[int, typer.Option(min=1, help="Largest upload.")] = 100,
    max_seconds: Annotated[float, typer.Option(help="Longest clip.")] = 600.0,
    max_frames: Annotated[int, typer.Option(min=1, help="Most frames that are sampled.")] = 32,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Ask in a browser, and see what was kept."""
    with working("loading the model"):
        from ..app import desk

        try:
            from ..app import interface
        except ImportError as error:
            raise ValueError("the app needs gradio: pip install 'sharpv[app]'") from error
        asked = desk.Desk(model, device, dtype, desk.Limits(max_megabytes, max_seconds, max_frames))
    with checking():
        interface.serve(asked, host, port, lambda address: out.print(f"open {address} (Ctrl+C ends it)"))


@app.command()
@configured("memory")
def calibrate(
    videos: Annotated[list[Path], typer.Argument(help="A few clips like yours.", show_default=False)],
    questions: Annotated[list[str], typer.Option("--question", help="Asked of each clip; several may be given.")],
    config: Config,
    model: Model = "pocket",
    tolerance: Annotated[float, typer.Option(help="How far answers may move: KL divergence per token, nats.")] = 0.01,
    frames: Annotated[int, typer.Option(help="Frames to sample.")] = DEFAULT_FRAMES,
    device: Device = "auto",
    dtype: Dtype = "auto",
    max_new_tokens: Annotated[int, typer.Option(min=2, help="Longest answer.")] = 48,
    save: Annotated[Path | None, typer.Option(help="Save what was found, for --config.")] = None,
    json_output: Json = False,
) -> None:
    """Measure which layers must keep the video, for --memory: the model answers, and each layer forgets in turn."""
    with checking():
        from ..video import read_video

        _require_folder("--save", save)
        clips = [read_video(video, frames=frames) for video in videos]
    with working("loading the model"):
        from .. import asking, calibration

        calibration.require(config, tolerance)
        loaded, processor = asking.load(model, device, dtype)
    with working("answering, once per layer"):
        asked = [asking.encode(loaded, processor, clip, question) for clip in clips for question in questions]
        prompts = [inputs.to(loaded.device, loaded.dtype) for inputs in asked]
        found = calibration.calibrate(loaded, prompts, config, tolerance=tolerance, max_new_tokens=max_new_tokens)
        if save is not None:
            found.config.save(save)
    if json_output:
        harms = [None if math.isnan(harm) else harm for harm in found.harm]
        facts = {**vars(found), "harm": harms, "keep": list(found.keep), "config": found.config.to_dict()}
        typer.echo(json.dumps(facts))
        return
    table = Table("layer", "harm when it forgets", box=None)
    for layer, harm in enumerate(found.harm):
        kept = layer in found.keep
        table.add_row(str(layer), f"{harm:.2g}" + (" keeps the video" if kept else ""), style="bold" if kept else "dim")
    out.print(table)
    measured = f"mean KL in nats over {found.tokens} tokens of {found.answers} answers"
    rest = f"{found.together:.2g} when all but {len(found.keep)} of {len(found.harm)} layers forget"
    out.print(f"[dim]{measured}; {rest}[/]", soft_wrap=True)
    if len(found.keep) == len(found.harm):
        err.print("[yellow]no layer can forget the video here without harm: leave --memory off[/]")
    out.print(f"--memory layers:{'+'.join(map(str, found.keep))}")


@app.command("eval")
def evaluate(
    methods: Annotated[str, typer.Option(help="Names, separated by commas; see 'sharpv methods'.")] = "sharpv,random",
    retentions: Annotated[str, typer.Option(help="Kept shares, separated by commas.")] = "0.5,0.25,0.12",
    videos: Annotated[int, typer.Option(min=1, max=1000, help="The first n of pocket's evaluation videos.")] = 100,
    frames: Annotated[int, typer.Option(min=4, max=32, help="Frames a video.")] = 8,
    model: Annotated[str, typer.Option(help="'pocket', 'smol', or a directory with either.")] = "pocket",
    folder: Annotated[Path | None, typer.Option("--out", help="Keep finished rows here; rerun to resume.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw accuracy against the kept share: .svg or .png.")] = None,
    page: Annotated[
        Path | None, typer.Option("--report", help="Also write a page with plot and sortable tables: .html.")
    ] = None,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Accuracy of each method on pocket's evaluation videos, with paired 95 % intervals."""
    from rich.markdown import Markdown
    from rich.progress import Progress

    with working("checking"):
        from ..evaluation import comparison
        from ..evaluation import plot as plotting

        if plot is not None:
            plotting.check(plot)
            _require_folder("--plot", plot)
        _require_page(page)
        rows = comparison.grid(parts(methods), numbers("--retentions", retentions))
    with working("looking at the videos"):
        compared = comparison.prepare(model, videos, frames, folder, device)
    with Progress(console=err, disable=not err.is_terminal) as progress:
        outcomes = list(progress.track(compared.run(rows), len(rows), description="answering"))
    table = comparison.markdown(compared, outcomes)
    facts = {**compared.about, "rows": [compared.facts(outcome, outcomes[0]) for outcome in outcomes]}
    if folder is not None:
        (folder / "table.md").write_text(table, encoding="utf-8")
    if page is not None:
        from ..view.comparing import comparison_page

        with checking():
            page.write_text(comparison_page(facts, f"{model}: methods side by side"), encoding="utf-8")
    if plot is not None:
        curves = comparison.curves(compared, outcomes[1:], outcomes[0])
        with working("drawing"):
            top = compared.accuracy(outcomes[0])
            heading = f"{model}: accuracy against kept visual tokens, {videos} videos, 95 % intervals to dense"
            plotting.draw(plot, curves, "visual tokens before the LLM", "mean accuracy", ("dense", top), title=heading)
    if json_output:
        typer.echo(json.dumps(facts))
    else:
        out.print(Markdown(table))


for listing in (lists.methods, lists.stages, lists.encodings, lists.models):
    app.command()(listing)


def _require_page(path: Path | None) -> None:
    """Refuse, before the work, a page that could not be written after it."""
    if path is not None and path.suffix not in (".html", ".htm"):
        raise ValueError(f"--report writes a page, an .html file, got {str(path)!r}")
    _require_folder("--report", path)


def _require_folder(option: str, path: Path | None) -> None:
    """Refuse, before the work, a file that could not be written after it."""
    if path is not None and not path.resolve().parent.is_dir():
        raise ValueError(f"{option} {path}: there is no folder {path.parent}")
