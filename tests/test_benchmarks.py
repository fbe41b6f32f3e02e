"""Every study of every benchmark runs, at its smallest size: none rots unseen. What they measure is not looked at."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.insert(0, str(ROOT / "tests"))
SCRIPTS = {name: importlib.import_module(name) for name in ("first_stage", "through_generate", "second_stage", "speed")}
STUDIES = [
    (name, study) for name, script in SCRIPTS.items() for study in getattr(script, "STUDIES", ()) or script.CASES
]


def command(name: str) -> typer.Typer:
    app = typer.Typer()
    script = SCRIPTS[name]
    app.command()(script.main if hasattr(script, "main") else script.script(f"{name}.py", script.STUDIES))
    return app


def run(app: typer.Typer, *arguments: object) -> None:
    threads = torch.get_num_threads()
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(("name", "study"), STUDIES)
def test_a_study_runs_and_writes_its_page(name, study, tmp_path):
    run(command(name), study, "--smoke", "--out", tmp_path, "--threads", 1)
    pages = list(tmp_path.glob("*.md"))
    assert len(pages) == 1 and len(list(tmp_path.glob("*.json"))) == 1
    text = pages[0].read_text()
    assert text.startswith("# ") and f"benchmarks/{name}.py {study}" in text and "| --- |" in text
    assert json.loads(pages[0].with_suffix(".json").read_text())


def test_a_wrong_study_lists_the_known_ones(tmp_path):
    result = CliRunner().invoke(command("first_stage"), ["magic", "--smoke", "--out", str(tmp_path)])
    assert result.exit_code == 2 and "threshold" in result.output
    refused = CliRunner().invoke(command("first_stage"), ["methods", "--smoke"])
    assert refused.exit_code == 2 and "--out" in refused.output


def test_the_serving_estimate(tmp_path):
    run(importlib.import_module("serving").app, "pixels", "--videos", 3, "--out", tmp_path)
    assert "| pocket's evaluation | 3 |" in (tmp_path / "pixel_estimate.md").read_text()


def test_time_to_first_token(tmp_path):
    app = typer.Typer()
    app.command()(importlib.import_module("first_token").main)
    clip = ROOT / "src" / "sharpv" / "pocket" / "clips" / "mover.mp4"
    run(app, clip, "--smoke", "--frames", 4, "--rounds", 1, "--out", tmp_path)
    page = (tmp_path / "first_token_llava-onevision-0.5b.md").read_text()
    assert "a screen: SharpV, kept 12 %, encode=kept" in page and "benchmarks/first_token.py" in page


def test_the_gpu_check_tries_itself_on_a_cpu(tmp_path):
    app = typer.Typer()
    app.command()(importlib.import_module("gpu_check").main)
    result = CliRunner().invoke(app, ["--device", "cpu", "--family", "qwen2_5_vl", "--out", str(tmp_path)])
    assert result.exit_code in (0, 1) and "qwen2_5_vl" in (tmp_path / "gpu_check.md").read_text(), result.output


def test_training_pages(tmp_path):
    from sharpv import pocket

    run_folder = tmp_path / "seed1"
    run_folder.mkdir()
    (run_folder / "model").symlink_to(pocket.checkpoint_path())
    (run_folder / "log.jsonl").write_text("{}\n")
    app = importlib.import_module("training_pages").app
    run(app, "pocket", run_folder, "--videos", 2, "--threads", 1, "--out", tmp_path / "out")
    assert "mean of" in (tmp_path / "out" / "pocket_training.md").read_text()
    logs = sorted((ROOT / "docs" / "results").glob("smol_training_*.jsonl"))
    run(app, "smol", *logs, "--out", tmp_path / "out")
    page = (ROOT / "docs" / "results" / "smol_training.md").read_text()
    made = (tmp_path / "out" / "smol_training.md").read_text()
    assert made.splitlines()[4:] == page.splitlines()[4:]  # the first lines name the command
