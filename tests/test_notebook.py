"""The notebook of the documentation runs as it stands, and shows what it promises."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat

NOTEBOOK = Path(__file__).parents[1] / "docs" / "look.ipynb"


def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum('class="sharpv small"' in data.get("text/html", "") for data in shown) == 1
    assert sum("image/png" in data for data in shown) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
