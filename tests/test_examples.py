"""The examples: what they promise to whoever copies them."""

from __future__ import annotations

import ast
from pathlib import Path

SPACE = Path(__file__).parents[1] / "examples" / "space"


def test_a_space_says_what_it_is():
    _, head, text = (SPACE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    facts = dict(line.split(": ", 1) for line in head.splitlines())
    assert facts["sdk"] == "gradio" and (SPACE / facts["app_file"]).is_file() and text.strip()
    assert len(facts["short_description"]) <= 60
    assert "sharpv[app]" in (SPACE / "requirements.txt").read_text()


def test_a_space_asks_for_what_there_is():
    """What it imports and calls exists; tests/browser runs the app itself."""
    from sharpv.app.desk import Desk, Limits

    tree = ast.parse((SPACE / "app.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == {"Desk", "Limits", "serve"} and callable(Desk)
    (limits,) = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Limits")
    assert Limits(**{word.arg: ast.literal_eval(word.value) for word in limits.keywords})
