"""The suite on every supported minor version of transformers, each in a folder of its own: ``make test-matrix``.

Writes docs/versions.md: per version and family how many tests passed. The folders (``.matrix/<version>``) hold one
transformers each and go before the environment's own; torch and the rest are shared. A version whose own requirements
the environment does not meet fails at import, and the table says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

import typer
from rich.console import Console

import tiny
from sharpv.models import FAMILIES

ROOT = Path(__file__).parents[1]
VERSIONS = ["5.18", "5.19", "5.20", "5.21", "5.22", "5.23", "5.24"]
OTHER = "everything else"
APART = ("pocket", "test_budget.py", "test_importance.py", "test_methods.py", "test_peers.py")
"""Tests that no version of transformers can change."""
TABLE = "tests/test_modes.py::test_the_table_in_the_docs_is_this_one"
METHODS = "uniform or random or evs or vidcom2 or dycoke or divprune or subsample"
"""Rows of the invariants that differ in nothing but the keep mask."""


def main(
    versions: Annotated[list[str] | None, typer.Argument(help="Minor versions, for instance 5.18.")] = None,
    processes: Annotated[int, typer.Option(help="Test processes.")] = 2,
    write: Annotated[bool, typer.Option(help="Write docs/versions.md (with all versions only).")] = True,
) -> None:
    """Run the suite on each version and print the table."""
    console, results = Console(), {}
    for version in versions or VERSIONS:
        folder = install(version)
        exact = next(folder.glob("transformers-*.dist-info")).name.split("-")[1].removesuffix(".dist")
        results[exact] = run(folder, processes)
        failed = sum(results[exact][name, "failed"] for name, _ in results[exact])
        console.print(f"transformers {exact}: {(failed and 'failures') or 'green'}", highlight=False)
    page = table(results)
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    if write and versions is None:
        (ROOT / "docs" / "versions.md").write_text(page)


def install(version: str) -> Path:
    """One transformers in a folder, with nothing else."""
    folder = ROOT / ".matrix" / version
    if not any(folder.glob("transformers-*.dist-info")):
        wanted = ["--quiet", "--no-deps", "--target", str(folder), f"transformers=={version}.*"]
        subprocess.run([sys.executable, "-m", "pip", "install", *wanted], check=True)
    return folder


def run(folder: Path, processes: int) -> Counter[tuple[str, str]]:
    """Passed and failed tests, by family."""
    report = folder.with_suffix(".xml")
    report.unlink(missing_ok=True)
    tests = ["tests", *(f"--ignore=tests/{name}" for name in APART), f"--deselect={TABLE}", "-k", f"not ({METHODS})"]
    options = ["-n", str(processes), "-p", "no:cacheprovider", f"--junitxml={report}"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    with folder.with_suffix(".log").open("w") as log:
        command = [sys.executable, "-m", "pytest", *tests, *options]
        subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False)
    counts: Counter[tuple[str, str]] = Counter()
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        name = case.get("name", "")
        parameters = name.partition("[")[2].split("-")
        family = next((model_type for model_type in tiny.FAMILIES if model_type in parameters), OTHER)
        broken = case.find("failure") is not None or case.find("error") is not None
        counts[family, "failed" if broken else "passed"] += 1
    return counts


def table(results: dict[str, Counter[tuple[str, str]]]) -> str:
    """The page."""
    names = {t: family.name for family in FAMILIES for t in family.model_types if t in tiny.FAMILIES}
    lines = [
        "# Versions of transformers",
        "",
        "Tests passed of tests run, per family, on tiny models with random weights on a CPU. Written by "
        "`make test-matrix`.",
        "",
        "| family | " + " | ".join(results) + " |",
        "| --- |" + " --- |" * len(results),
    ]
    for key in (*names, OTHER):
        name = f"{names[key]} (`{key}`)" if key in names else key
        cells = []
        for counts in results.values():
            passed, failed = counts[key, "passed"], counts[key, "failed"]
            cells.append(f"{passed} of {passed + failed}" if failed else str(passed) if passed else "did not run")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
