"""The page: one file that holds everything, works without a network and runs no script.

Templates escape whatever they are given, and the page's own policy forbids scripts and everything from elsewhere: a
question or an answer may contain anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from .. import words
from . import plots
from .drawing import draw, listed, require, shown_clips
from .pictures import LEVELS

if TYPE_CHECKING:
    from jinja2 import Environment

    from ..asking import Answer
    from ..report import Report

SMALL = 24
"""Frames of a video that a notebook's cell shows at most."""


@dataclass(frozen=True)
class Asked:
    """One question, how it was answered, and what was kept for it.

    Attributes:
        report: of the pruned run.
        question: what was asked.
        pruned, dense: what was answered with and without pruning, where it is known.
        truth: the right answer, where it is known.
        note: a sentence below the answers.
    """

    report: Report
    question: str = ""
    pruned: Answer | None = None
    dense: Answer | None = None
    truth: str = ""
    note: str = ""


def page(asked: Sequence[Asked], clips: Any = None, title: str = "") -> str:
    """A whole page about one prompt's videos, for one question or several.

    Args:
        asked: the questions; what they have in common is drawn once.
        clips: the clip, or one for each video of the prompt: what :func:`sharpv.read_video` returned, or its pictures
            ``(T, H, W, 3)`` uint8. None: only the grids of tokens are drawn.
        title: the page's; by default it names the clip.

    Raises:
        TypeError, ValueError: clips that are not what the reports are about.

    >>> Path("both.html").write_text(page([Asked(first, "Who?"), Asked(second, "Where?")], clip), encoding="utf-8")
    """
    if not asked:
        raise ValueError("a page needs at least one report, got none")
    shown = _shown(asked, clips)
    names = [clip.source.name for clip in listed(clips) if hasattr(clip, "source")]
    return templates().get_template("page.html").render(shown, title=title or ", ".join(names) or "What was kept")


def fragment(asked: Sequence[Asked], clips: Any = None, small: bool = False) -> str:
    """The same for a place inside another page, with its style; ``small`` is a notebook's."""
    return templates().get_template("fragment.html").render(_shown(asked, clips), small=small)


@cache
def templates() -> Environment:
    """The templates of this room; whatever they are given is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("sharpv.view"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(percent=words.percent, size=words.size, both=words.both)
    return made


def _shown(asked: Sequence[Asked], clips: Any) -> dict[str, Any]:
    """What the templates show; questions for which the same tokens were kept share a part."""
    parts: list[list[Asked]] = []
    for each in asked:
        same = next((part for part in parts if _drawing(part[0].report) == _drawing(each.report)), None)
        if same is None:
            parts.append([each])
        else:
            same.append(each)
    given = shown_clips(clips)
    for part in parts:
        require(part[0].report, [len(clip.images) for clip in given])
    drawn = [
        {
            "asked": part,
            "report": part[0].report,
            "videos": [
                draw(video, f"{number}-{index}", given[index] if given else None)
                for index, video in enumerate(part[0].report.videos)
            ],
            "layers": _layers(part[0].report),
        }
        for number, part in enumerate(parts)
    ]
    # several cells of one notebook share a page: what they call their own must differ
    key = hashlib.sha256(repr([(each.question, each.report.config, clips is None) for each in asked]).encode())
    slowest = max((said.seconds for each in asked for said in (each.pruned, each.dense) if said), default=0.0)
    return {"asked": asked, "parts": drawn, "key": key.hexdigest()[:8], "slowest": slowest, "levels": LEVELS}


def _drawing(report: Report) -> tuple[Any, ...]:
    return report.config, report.videos, report.measured, report.forgotten, report.layers


def _layers(report: Report) -> list[tuple[int, Markup]]:
    """The second stage's plot of each sample; nothing where there was none."""
    if not report.forgotten:
        return []
    return [(sample, plots.layers(report, sample)) for sample in sorted({video.sample for video in report.videos})]
