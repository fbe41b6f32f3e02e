"""Every family in every mode: it gives what it must, or is refused in one sentence; docs/modes.md says which."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import modes
import sharpv
import tiny
from sharpv.models import FAMILIES


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*deprecated.*", "ignore:.*recompile.*")
@pytest.mark.parametrize("stage", modes.STAGES)
@pytest.mark.parametrize("mode", modes.MODES)
def test_mode(family: str, mode: str, stage: str, tmp_path: Path) -> None:
    case = modes.Case(family, modes.STAGES[stage], tmp_path)
    refused = modes.refusal(mode, family, stage)
    if refused is None:
        modes.MODES[mode](case)
    else:
        with pytest.raises(ValueError, match=re.escape(refused.sentence)):
            modes.MODES[mode](case)
    assert sharpv.Handle.of(case.model) is None


@pytest.mark.parametrize("stage", modes.STAGES)
@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_variants_of_a_family(variant: str, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiny.FAMILIES, variant, tiny.VARIANTS[variant])
    case = modes.Case(variant, modes.STAGES[stage], tmp_path)
    modes.greedy(case)
    modes.beams(case)


def test_every_model_type_has_been_seen() -> None:
    assert sharpv.list_models() == sorted({**tiny.FAMILIES, **tiny.VARIANTS})
    assert {name for family in FAMILIES for name in family.variants} == set(tiny.VARIANTS)


def test_the_table_in_the_docs_is_this_one() -> None:
    assert modes.DOCUMENT.read_text() == modes.table(), "write it again: python tests/modes.py"
