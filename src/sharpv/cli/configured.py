"""Every field of the configuration as an option of a command, by construction."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..config import Config, options
from .terminal import checking

FILE = "config_file"


def configured(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: the command takes ``--config FILE`` and an option for each field, and is given ``config``.

    Args:
        without: fields that the command does not offer.
    """
    offered = [each for each in options() if each.name not in without]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [each for each in inspect.signature(command).parameters.values() if each.name != "config"]
        given = [each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        given.append(_option(FILE, Path, "--config", "A saved configuration; options replace its fields."))
        given += [
            _option(each.name, _kind(str(each.type)), _flag(each.name), each.metadata["help"]) for each in offered
        ]

        def run(**values: Any) -> None:
            asked = {each.name: values.pop(each.name) for each in offered}
            file = values.pop(FILE)
            with checking():
                config = Config() if file is None else Config.load(file)
                for name in without:
                    if getattr(config, name) != getattr(Config(), name):
                        raise ValueError(f"{file} sets {name}, which this command does not take")
                config = Config.of(config, **{name: value for name, value in asked.items() if value is not None})
            command(config=config, **values)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        vars(run)["__signature__"] = inspect.Signature(given)
        run.__annotations__ = {each.name: each.annotation for each in given}
        return run

    return decorate


def _option(name: str, kind: type[Any], flag: str, words: str) -> inspect.Parameter:
    option = typer.Option(flag, help=words, show_default=False)
    annotation = Annotated.__class_getitem__((kind | None, option))  # type: ignore[attr-defined]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _kind(annotation: str) -> type[Any]:
    """What the command line reads: text wherever a name may stand."""
    return next((kind for kind in (str, float, int) if kind.__name__ in annotation), str)
