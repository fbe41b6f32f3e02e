"""The suite on every supported minor version of transformers, each in a folder of its own: ``make test-matrix``.

Writes docs/reference/versions.md: per version and family how many tests passed. The folders (``.matrix/<version>``)
hold one transformers each and go before the environment's own; torch and the rest are shared. A version whose own
requirements the environment does not meet fails at import, and the table says so.
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
METHODS = "uniform or random or evs or vidcom2 or dycoke or divprune or cdpruner or subsample"
"""Rows of the invariants that differ in nothing but the keep mask."""


def main(
    versions: Annotated[
        list[str] | None, typer.Argument(help="Minor versions, for instance 5.18; all by default.")
    ] = None,
    processes: Annotated[int, typer.Option(help="Test processes.")] = 2,
) -> None:
    """Run the suite on each version; the page holds every version that has been run here."""
    console = Console()
    for version in versions or VERSIONS:
        run(install(version), processes)
        failed = sum(count for (_, outcome), count in counts(version).items() if outcome == "failed")
        console.print(f"transformers {exact(version)}: {failed or 'no'} failures", highlight=False)
    page = table({exact(version): counts(version) for version in VERSIONS if report(version).exists()})
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    (ROOT / "docs" / "reference" / "versions.md").write_text(page)


def report(version: str) -> Path:
    """What pytest wrote for a version."""
    return ROOT / ".matrix" / f"{version}.xml"


def exact(version: str) -> str:
    """The patch version that was installed."""
    (installed,) = (ROOT / ".matrix" / version).glob("transformers-*.dist-info")
    return installed.name.removeprefix("transformers-").removesuffix(".dist-info")


def install(version: str) -> Path:
    """One transformers in a folder, with nothing else."""
    folder = ROOT / ".matrix" / version
    if not any(folder.glob("transformers-*.dist-info")):
        wanted = ["--quiet", "--no-deps", "--target", str(folder), f"transformers=={version}.*"]
        subprocess.run([sys.executable, "-m", "pip", "install", *wanted], check=True)
    return folder


def run(folder: Path, processes: int) -> None:
    """The suite with a version's folder before everything else."""
    wanted = report(folder.name)
    wanted.unlink(missing_ok=True)
    tests = ["tests", *(f"--ignore=tests/{name}" for name in APART), f"--deselect={TABLE}", "-k", f"not ({METHODS})"]
    options = ["-n", str(processes), "-p", "no:cacheprovider", f"--junitxml={wanted}"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    with wanted.with_suffix(".log").open("w") as log:
        command = [sys.executable, "-m", "pytest", *tests, *options]
        subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False)


def counts(version: str) -> Counter[tuple[str, str]]:
    """Passed and failed tests, by family."""
    result: Counter[tuple[str, str]] = Counter()
    for case in ElementTree.parse(report(version)).iter("testcase") if report(version).exists() else ():
        name = case.get("name", "")
        parameters = name.partition("[")[2].rstrip("]").split("-")
        family = next((model_type for model_type in tiny.FAMILIES if model_type in parameters), OTHER)
        broken = case.find("failure") is not None or case.find("error") is not None
        result[family, "failed" if broken else "passed"] += 1
    return result


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
        for result in results.values():
            passed, failed = result[key, "passed"], result[key, "failed"]
            cells.append(f"{passed} of {passed + failed}" if failed else str(passed) if passed else "did not run")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
