"""The commands that list what there is."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from .terminal import Json, out


def methods(json_output: Json = False) -> None:
    """The pruning methods: which visual tokens are kept before the language model."""
    from ..methods import METHODS

    facts = [
        {
            "name": name,
            "keeps": method.summary,
            "decides how much": method.adaptive,
            "time": method.cost,
            "paper": method.paper,
            "parameters": _parameters(method),
        }
        for name, method in sorted(METHODS.items())
    ]
    _list(facts, json_output, "keeps")
    if not json_output:
        out.print(
            "[dim]Parameters are written as sharpv:weight=0.5. Time grows with T frames, N tokens a frame, D channels. "
            "Those that do not decide how much need a --retention, which all meet exactly.[/]"
        )


def stages(json_output: Json = False) -> None:
    """The second stages: what the language model's layers keep of the video."""
    from ..kvcache import STAGES

    facts = [
        {"name": name, "does": stage.summary, "paper": stage.paper, "parameters": _parameters(stage)}
        for name, stage in sorted(STAGES.items())
    ]
    _list(facts, json_output, "does")


def encodings(json_output: Json = False) -> None:
    """The ways to encode: which patches of a frame go through the vision tower."""
    from ..vision.rules import ENCODINGS

    facts = [
        {"name": name, "encodes": rule.summary, "parameters": _parameters(rule)}
        for name, rule in sorted(ENCODINGS.items())
    ]
    _list(facts, json_output, "encodes")


def models(json_output: Json = False) -> None:
    """The model families."""
    from ..models import FAMILIES

    facts = [
        {
            "name": family.name,
            "for instance": ", ".join(family.examples),
            "model types": list(family.model_types),
            "positions": {"1d": "1-D RoPE", "mrope": "multimodal RoPE"}[family.positions],
            "second stage": "in the layers that keep keys" if family.hybrid else "in every layer",
            "tested in greedy decoding and beams only": list(family.variants),
        }
        for family in FAMILIES
    ]
    _list(facts, json_output, "for instance")
    if not json_output:
        out.print("[dim]Every mode of every family: docs/modes.md. Versions of transformers: docs/versions.md.[/]")


def _list(facts: list[dict[str, Any]], as_json: bool, main: str) -> None:
    """Name and main fact of each entry, and below them what else there is to say: readable on 80 columns."""
    if as_json:
        typer.echo(json.dumps(facts))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for entry in facts:
        rest = [f"{key}: {_said(value)}" for key, value in entry.items() if key not in ("name", main) and value != ""]
        rest = [text for text in rest if not text.endswith(": ")]
        table.add_row(entry["name"], f"{escape(str(entry[main]))}\n[dim]{escape('; '.join(rest))}[/]")
    out.print(table)


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}={default}" for key, default in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _parameters(cls: type[Any]) -> dict[str, Any]:
    from dataclasses import MISSING

    from ..registry import parameters

    return {each.name: None if each.default is MISSING else each.default for each in parameters(cls)}
