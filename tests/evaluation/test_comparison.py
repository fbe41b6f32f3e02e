"""Comparisons of methods: paired, resumable, the same answers as the evaluation they are made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import checkpoints
from pocket_size import TINY
from sharpv import SharpV
from sharpv.cli.app import app
from sharpv.evaluation.comparison import Comparison, Outcome, Row, grid, prepare
from sharpv.evaluation.scoring import evaluation_set, score, summarise
from sharpv.methods import Random
from sharpv.pocket.model import build_model, export

ROWS = [Row("dense"), Row("SharpV", SharpV(), 0.25), Row("packed", SharpV(), 0.25, "packed"), Row("r", Random(), 0.5)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("pocket") / "model"
    export(build_model(TINY), directory)
    return directory


@pytest.fixture(scope="module")
def compared(checkpoint) -> Comparison:
    return prepare(checkpoint, videos=3, frames=4)


def test_a_row_is_what_the_evaluation_says(compared):
    dense, quarter, *_ = compared.run(ROWS)
    records = score(compared.model, compared.evaluation, compared.features)
    assert dense.correct.tolist() == [record.correct for record in records]
    assert compared.accuracy(dense) == pytest.approx(summarise(records).mean)
    expected = {name: result.accuracy for name, result in summarise(records).families.items()}
    assert compared.by_family(dense) == pytest.approx(expected)
    assert dense.kept == 1.0 and quarter.kept == pytest.approx(49 / 196)


def test_differences_are_paired_by_video(compared):
    ones, zeros = np.ones(len(compared.video), int), np.zeros(len(compared.video), int)
    right, wrong = Outcome(Row("right"), 1.0, ones), Outcome(Row("wrong"), 1.0, zeros)
    assert compared.difference(right, wrong) == (100.0, 100.0, 100.0)
    assert compared.difference(right, right) == (0.0, 0.0, 0.0)
    # right on the first video only: the interval spans what drawing three videos can give
    first = Outcome(Row("first"), 1.0, (compared.video == 0).astype(int))
    mean, low, high = compared.difference(first, wrong)
    assert low == 0.0 < mean < high == 100.0


def test_finished_rows_are_not_run_again(compared, tmp_path, monkeypatch):
    first = Comparison(compared.model, compared.evaluation, compared.phrasing, tmp_path / "out")
    before = list(first.run(ROWS[:2]))
    again = Comparison(compared.model, compared.evaluation, compared.phrasing, tmp_path / "out")
    monkeypatch.setattr("sharpv.evaluation.comparison.score", lambda *args, **kwargs: pytest.fail("ran again"))
    for outcome, same in zip(before, again.run(ROWS[:2]), strict=True):
        assert np.array_equal(outcome.correct, same.correct) and outcome.kept == same.kept


def test_rows_of_another_evaluation_are_refused(compared, tmp_path):
    list(Comparison(compared.model, compared.evaluation, compared.phrasing, tmp_path).run(ROWS[:1]))
    with pytest.raises(ValueError, match="holds another comparison"):
        Comparison(compared.model, evaluation_set(videos=2, frames=4), compared.phrasing, tmp_path)


def test_the_grid_gives_adaptive_methods_their_own_retention_too():
    labels = [(row.label, row.retention) for row in grid(["sharpv", "evs"], [0.5, 0.1])]
    assert labels == [
        ("dense", None), ("sharpv, adaptive", None), ("sharpv", 0.5), ("sharpv", 0.1), ("evs", 0.5), ("evs", 0.1),
    ]  # fmt: skip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *(str(argument) for argument in arguments)])


def test_the_command_writes_a_table_and_continues(checkpoint, tmp_path):
    options = ("--model", checkpoint, "--videos", 2, "--frames", 4, "--out", tmp_path / "out", "--json")
    result = run(*options, "--retentions", 0.25)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert [row["label"] for row in facts["rows"]] == ["dense", "sharpv, adaptive", "sharpv", "random"]
    assert facts["videos"] == 2 and facts["rows"][2]["kept"] == pytest.approx(0.25)
    assert (tmp_path / "out" / "table.md").read_text().startswith("| kept before the LLM | method |")
    plot = tmp_path / "plot.svg"
    assert run(*options, "--retentions", "0.25,0.5", "--plot", plot).exit_code == 0
    assert plot.read_text().startswith("<?xml") and "</svg>" in plot.read_text()
    shown = run(*options[:-1], "--methods", "evs", "--retentions", 0.5)
    assert "kept before the LLM" in shown.stdout and "evs" in shown.stdout


def test_the_command_refuses_bad_input(checkpoint, tmp_path):
    foreign = checkpoints.write(tmp_path / "foreign", "qwen2_5_vl")
    for arguments, message in (
        (("--methods", "magic"), "unknown method 'magic'"),
        (("--methods", "fastv"), "unknown method 'fastv'"),
        (("--retentions", "0.5,1.5"), "must lie in (0, 1], got 1.5"),
        (("--plot", "table.txt"), "a plot is an .svg, .png or .pdf file, got 'table.txt'"),
        (("--retentions", "half"), "--retentions takes numbers separated by commas, got 'half'"),
        (("--model", foreign), "does not know: pass pocket or smol"),
        (("--model", checkpoint, "--out", checkpoint / "config.json"), "File exists"),
    ):
        result = run("--videos", 1, *arguments)
        assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.output


@pytest.mark.parametrize("text", ["", '{"about": {', "[]", '{"about": {}}', '{"about": 1, "rows": {"a": 3}}'])
def test_damaged_rows_are_named(checkpoint, tmp_path, text):
    (tmp_path / "rows.json").write_text(text)
    result = run("--model", checkpoint, "--videos", 1, "--out", tmp_path)
    assert result.exit_code == 2 and "rows.json is damaged" in "".join(result.stderr.split("\n")), result.output


def test_lists_may_have_spaces(checkpoint):
    result = run(
        "--model", checkpoint, "--videos", 1, "--methods", "uniform, random", "--retentions", "0.5, 0.25", "--json"
    )
    assert result.exit_code == 0, result.output
    assert [row["label"] for row in json.loads(result.stdout)["rows"]] == ["dense", *["uniform"] * 2, *["random"] * 2]
