"""What the site makes from the code, so that it cannot disagree with it: a hook of mkdocs, an extension of griffe.

A line ``[generated: NAME]`` in a page is replaced by what :data:`PARTS` makes of that name. Docstrings are written with
``>>>`` and Sphinx roles, which read well in a terminal; here they become Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer

try:
    from griffe import Extension
except ImportError:  # the tests make the parts without the site's packages
    Extension = object

RESULTS = Path(__file__).parent / "results"
MARKER = re.compile(r"^\[generated: ([a-z -]+)\]$", re.MULTILINE)
ROLE = re.compile(r":(?:class|func|meth|attr|data|mod):`[~.!]*([^`]+)`")
EXAMPLE = re.compile(r"(?:^>>> .*(?:\n.+)*)", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page."""
    return MARKER.sub(lambda found: PARTS[found[1]](), markdown)


class Docstrings(Extension):
    """Called by griffe for each object of the package."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_attribute(self, *, attr: Any, **_: Any) -> None:
        """A field of Config shows its default, and not the call that gives it one."""
        if str(attr.value).startswith("_asked("):
            attr.value = attr.value.arguments[0]


def as_markdown(text: str) -> str:
    """A docstring with its roles as code and its examples fenced.

    >>> as_markdown("See :func:`sharpv.apply`.")
    'See `sharpv.apply`.'
    """
    text = re.sub(r"``([^`]+)``", r"`\1`", ROLE.sub(r"`\1`", text))
    parts = re.split(r"(?m)^(Example|Examples):$", text, maxsplit=1)  # griffe reads this section by itself
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", parts[0]) + "".join(
        f"{title}:{rest}" for title, rest in zip(parts[1::2], parts[2::2], strict=True)
    )


def command_line() -> str:
    """Every command with its arguments and options, as typer knows them."""
    from sharpv.cli.app import app

    group: Any = typer.main.get_command(app)
    context = group.make_context("sharpv", [], resilient_parsing=True)
    return "\n\n".join(_command(command, name, context) for name, command in group.commands.items())


def _command(command: Any, name: str, parent: Any) -> str:
    context = type(parent)(command, info_name=name, parent=parent)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [f"## sharpv {name}", "", str(command.help or ""), "", f"    {usage}", "", "| option | |", "| --- | --- |"]
    for parameter in command.params:
        record = parameter.get_help_record(context)
        names, words = record if record is not None else (parameter.make_metavar(context), parameter.help or "")
        lines.append(f"| `{_cell(names)}` | {_cell(words)} |")
    return "\n".join(lines)


def config_fields() -> str:
    """The fields of Config, their options, defaults and meanings."""
    from sharpv.config import Config

    rows = []
    for each in fields(Config):
        default = getattr(each.default, "name", each.default)
        shown = f'"{default}"' if isinstance(default, str) else str(default)
        rows.append((f"`{each.name}`", f"`--{each.name.replace('_', '-')}`", f"`{shown}`", each.metadata["help"]))
    return _table(("field", "option", "default", ""), rows)


def methods() -> str:
    """Every method that registers."""
    from sharpv.methods import METHODS

    return _registered(METHODS, lambda cls: "the content, or a budget" if cls.adaptive else "a `retention`", "how much")


def stages() -> str:
    """Every second stage."""
    from sharpv.kvcache import STAGES

    return _registered(STAGES)


def encodings() -> str:
    """Every way to encode."""
    from sharpv.vision.rules import ENCODINGS

    return _registered(ENCODINGS)


def models() -> str:
    """Every family."""
    from sharpv.models import FAMILIES

    rows = [
        (family.name, ", ".join(f"`{name}`" for name in family.model_types), ", ".join(family.examples))
        for family in FAMILIES
    ]
    return _table(("family", "`model_type`", "for instance"), rows)


def results() -> str:
    """Every page of measurements by its title."""
    pages = sorted(page for page in RESULTS.glob("*.md") if page.name != "index.md")
    titles = (page.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for page in pages)
    return "\n".join(f"- [{title}]({page.name})" for title, page in zip(titles, pages, strict=True))


def _registered(
    registry: Mapping[str, type[Any]], more: Callable[[type[Any]], str] | None = None, title: str = ""
) -> str:
    from sharpv.registry import parameters

    rows = []
    for name, cls in sorted(registry.items()):
        defaults = ", ".join(_parameter(each) for each in parameters(cls))
        paper = getattr(cls, "paper", "")
        link = f" ([{paper}](https://arxiv.org/abs/{paper}))" if paper else ""
        rows.append((f"`{name}`", cls.summary + link, defaults, *((more(cls),) if more else ())))
    return _table(("name", "", "parameters", *((title,) if more else ())), rows)


def _parameter(each: Any) -> str:
    from dataclasses import MISSING

    return f"`{each.name}`" if each.default is MISSING else f"`{each.name}={each.default}`"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


PARTS: dict[str, Callable[[], str]] = {
    "command line": command_line,
    "config": config_fields,
    "methods": methods,
    "stages": stages,
    "encodings": encodings,
    "models": models,
    "results": results,
}
