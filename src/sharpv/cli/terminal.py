"""How the command line speaks: results on stdout, the rest on stderr; an error is one sentence and exit code 2."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

out, err = Console(), Console(stderr=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HELP = "fewer --frames, a lower --retention, --frames-at-once, another --dtype or --device"


def replace_what_cannot_be_printed() -> None:
    """A terminal or file of another encoding than UTF-8 shows a question mark, where it would end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def printable(text: str, instead: str) -> str:
    """The text, or what stands for it where stdout cannot show it."""
    try:
        text.encode(out.encoding)
    except (UnicodeEncodeError, LookupError):
        return instead
    return text


def fail(message: object) -> NoReturn:
    """One sentence on stderr, exit code 2."""
    err.print(f"[bold red]error:[/] {escape(' '.join(str(message).split()))}", soft_wrap=True)
    raise typer.Exit(2)


@contextmanager
def checking() -> Iterator[None]:
    """Wrong input ends in :func:`fail`."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        fail(error)


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner on a terminal, nothing elsewhere; transformers' own talk is off; wrong input ends in :func:`fail`."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    with checking(), err.status(text) if err.is_terminal else nullcontext():
        try:
            yield
        except typer.Exit:
            raise
        except RuntimeError as error:  # torch.OutOfMemoryError among them
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            fail(f"{text} failed: {first}; what may help: {HELP}")


def parts(text: str) -> list[str]:
    """An option's entries, which commas part."""
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(option: str, text: str) -> list[float]:
    """The same as numbers; anything else ends the program."""
    try:
        return [float(part) for part in parts(text)]
    except ValueError:
        fail(f"{option} takes numbers separated by commas, got {text!r}")
