"""``encode`` in vLLM: all encoded is vLLM's own pass to the bit, a part is what the library makes of that part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from prompts import Library, Prompt, ask
from small import NAMES

from sharpv.integrations.vllm import encoding
from sharpv.vision.rules import Kept, Rule

PRUNED = {"video_pruning_rate": 0.75, "enable_prefix_caching": False}
KEPT = {"encode": "kept"}
MOVES = {
    title: Prompt(parts, change)
    for title, parts, change in (
        ("video", ("What is this?", 8), 0.05),
        ("everything moves", ("What is this?", 8), 1.0),
        ("nothing moves", ("What is this?", 8), 0.0),
        ("image, video", (1, "before", 12, "after"), 0.05),
        ("two videos", (6, "and", 6, "differ?"), 0.05),
    )
}


@dataclass(frozen=True)
class Together(Rule):
    """Another rule, with the patches of a token together, as Qwen's towers in vLLM take them."""

    name: ClassVar[str] = "together"
    summary: ClassVar[str] = ""
    rule: Rule

    def choose(self, pixels, budget, piece=None):
        return self.rule.choose(replace(pixels, together=pixels.frames.ndim == 3), budget, piece)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def kept(name, engine) -> dict[str, Any]:
    """Each prompt alone, and the shares of its places that were encoded."""
    found = {}
    for title, prompt in MOVES.items():
        shares: list[float] = []
        with seen(shares):
            found[title] = ask(engine(name, hf_overrides={"sharpv": KEPT}, **PRUNED), [prompt], name)[0], shares
    return found


class seen:  # noqa: N801 - a context manager, as contextlib names them
    """Notes what the packed passes that run meanwhile encode."""

    def __init__(self, shares: list[float]) -> None:
        self.shares = shares

    def __enter__(self) -> None:
        self.stock = encoding.segments, encoding.Packed

        def segments(here, source, lengths, device):
            self.shares.append(float(here.float().mean()))
            return self.stock[0](here, source, lengths, device)

        def packed(here, **options):
            self.shares.append(float(here.float().mean()))
            return self.stock[1](here, **options)

        encoding.segments, encoding.Packed = segments, packed  # type: ignore[misc,assignment]

    def __exit__(self, *_: object) -> None:
        encoding.segments, encoding.Packed = self.stock  # type: ignore[misc]


@pytest.mark.parametrize("title", MOVES)
def test_what_is_encoded_in_part_is_what_the_library_makes_of_that_part(title, name, kept, library):
    answer, shares = kept[title]
    expected = library(name).answer(MOVES[title])
    assert answer.agrees(expected)
    assert 0 < max(shares) < 1
    assert shares[0] == pytest.approx(library(name).pruning.report.encoded)


@pytest.fixture(scope="module")
def library(checkpoint):
    made: dict[str, Library] = {}

    def make(name: str) -> Library:
        if name not in made:
            made.clear()
            made[name] = Library(checkpoint(name), name, 0.25, encode=Together(Kept()))
        return made[name]

    return make
