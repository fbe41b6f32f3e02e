"""The comparison page: lines, intervals and tables of whatever figures, and the benchmarks' pages as they should be."""

from __future__ import annotations

import json

import pytest

from benchmarks.pages import RESULTS, pages
from sharpv.view.comparing import comparison_page
from shown import HOSTILE


def row(label: str, kept: float, accuracy: float, *difference: float) -> dict[str, object]:
    families = {"where": accuracy, "who": accuracy / 2}
    return {"label": label, "kept": kept, "accuracy": accuracy, "difference": list(difference), "families": families}


def facts(*rows: dict[str, object], **more: object) -> dict[str, object]:
    return {"videos": 20, "frames": 8, "questions": 1234, "rows": list(rows), **more}


DENSE = row("dense", 1.0, 0.9, 0.0, 0.0, 0.0)


def test_a_line_a_method_and_a_row_a_figure():
    some = [
        row("ours", 0.5, 0.88, -2, -3, -1),
        row("ours", 0.25, 0.8, -10, -12, -8),
        row("theirs", 0.25, 0.7, -20, -22, -18),
    ]
    text = comparison_page(facts(DENSE, *some), "Side by side")
    assert text.count("<polyline") == 2 and text.count('<circle cx="') - text.count('r="4" fill') == 3
    assert text.count('type="checkbox"') == 2 and text.count("<tr>") == 2 * (1 + 4)
    assert "<title>ours, kept 25.0 %: 0.800</title>" in text and "-12.0 to -8.0" in text and "1,234 questions" in text


@pytest.mark.parametrize("kept", [1.0, 0.001])
def test_any_share_has_a_place(kept):
    assert "NaN" not in comparison_page(facts(row("ours", kept, 0.5, 0, 0, 0), dense=0.5), "One").replace(
        "Number.isNaN", ""
    )


def test_names_stay_text():
    bad = {**row(HOSTILE, 0.5, 0.8, -10, -12, -8), "families": {HOSTILE: 0.5}}
    text = comparison_page(facts(DENSE, bad), HOSTILE)
    assert text.count("<script") == 1 and "<img" not in text


@pytest.mark.parametrize("wrong", [{"rows": []}, {"rows": [row("ours", 0.5, 0.8, 0, 0, 0)]}, {}])
def test_figures_without_a_dense_model_are_refused(wrong):
    with pytest.raises(ValueError, match="a comparison needs rows, and the accuracy of the dense model"):
        comparison_page(wrong, "None")


def test_the_benchmarks_pages_are_what_their_figures_say():
    made = pages()
    assert {path.stem for path in made} >= {"pocket_methods", "pocket_accuracy", "smol_methods"}
    for path, page in made.items():
        assert path.read_text(encoding="utf-8") == page, f"{path.name}: python benchmarks/pages.py writes it again"
        assert len(page) < 200_000 and json.loads((RESULTS / f"{path.stem}.json").read_text())
