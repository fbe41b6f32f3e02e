"""Every family in every mode: it gives what it must, or is refused; docs/reference/modes.md says which."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import every_mode
import sharpv
import tiny
from sharpv.models import FAMILIES


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*deprecated.*", "ignore:.*recompile.*")
@pytest.mark.parametrize("stage", every_mode.STAGES)
@pytest.mark.parametrize("mode", every_mode.MODES)
def test_mode(family: str, mode: str, stage: str, tmp_path: Path) -> None:
    case = every_mode.Case(family, every_mode.STAGES[stage], tmp_path)
    refused = every_mode.refusal(mode, family, stage)
    if refused is None:
        every_mode.MODES[mode](case)
    else:
        with pytest.raises(ValueError, match=re.escape(refused.sentence)):
            every_mode.MODES[mode](case)
    assert sharpv.Pruning.of(case.model) is None


@pytest.mark.parametrize("stage", every_mode.STAGES)
@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_variants_of_a_family(variant: str, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiny.FAMILIES, variant, tiny.VARIANTS[variant])
    case = every_mode.Case(variant, every_mode.STAGES[stage], tmp_path)
    every_mode.greedy(case)
    every_mode.beams(case)


def test_every_model_type_has_been_seen() -> None:
    assert sharpv.list_models() == sorted({**tiny.FAMILIES, **tiny.VARIANTS})
    assert {name for family in FAMILIES for name in family.variants} == set(tiny.VARIANTS)


def test_the_table_in_the_docs_is_this_one() -> None:
    assert every_mode.DOCUMENT.read_text() == every_mode.table(), "write it again: python tests/every_mode.py"
