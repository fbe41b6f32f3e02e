"""The documentation runs: every Python block of a page, in order, and every ``sharpv`` line that needs no large model.

The models that the pages name are small local checkpoints in folders of those names; ``clip.mp4`` is one of pocket's.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import shlex
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

import checkpoints
from sharpv import pocket
from sharpv.cli.app import app
from sharpv.config import Config
from sharpv.kvcache import STAGES
from sharpv.methods import METHODS

DOCS = Path(__file__).parents[1] / "docs"
PARTS = ("tutorial", "how-to", "explanation")
README = DOCS.parent / "README.md"
PAGES = [README, DOCS / "index.md", *sorted(page for part in PARTS for page in (DOCS / part).glob("*.md"))]
HUB = {"Qwen/Qwen2.5-VL-3B-Instruct": "qwen2_5_vl"}
"""What a page may load, and the family of the small checkpoint in its place."""
START = DOCS / "tutorial" / "qwen.md"
"""Pages other than tutorials go on from the names that this one leaves."""
NOT_RUN = {
    "how-to/vllm.md": "it asks a vLLM server, which has an environment of its own (make test-vllm)",
}
"""Python blocks that cannot run here, by page, and why."""
NOT_ASKED = {
    "--model smol": "smol's weights are a package of their own; tests/smol run it",
    "--videos 1000": "an evaluation of hours",
    "--videos 200": "an evaluation of minutes",
    "sharpv app": "it serves until it is stopped; tests/browser drives it",
}
"""Parts of command lines that keep a line from being run, and why."""
FENCE = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced code of a page in order: language and text."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def name_of(page: Path) -> str:
    return page.relative_to(DOCS.parent).as_posix().removeprefix("docs/")


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models and clips that the pages name."""
    folder = tmp_path_factory.mktemp("docs")
    for hub, family in HUB.items():
        checkpoints.write(folder / hub, family)
    for clip in ("clip.mp4", "a.mp4", "b.mp4"):
        shutil.copy(pocket.sample_clip("mover"), folder / clip)
    return folder


@pytest.fixture
def here(stocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each page has that folder's files, and writes into one of its own."""
    for entry in stocked.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    for registry in (METHODS, STAGES):  # what a page registers leaves with it
        len(registry)  # entry points are looked up once
        known = dict(registry._classes)
        monkeypatch.setattr(registry, "_classes", known)
        monkeypatch.setitem(vars(registry), "_all", known)
    return tmp_path


def commands(code: str) -> list[str]:
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("sharpv ") and not any(part in line for part in NOT_ASKED)]


def run(page: Path, names: dict[str, object], languages: tuple[str, ...]) -> None:
    for number, (language, code) in enumerate(blocks(page), 1):
        if language == "python" and language in languages:
            exec(compile(code, f"{name_of(page)}, block {number}", "exec"), names)
        elif language in languages:
            for line in commands(code):
                result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:], catch_exceptions=False)
                assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_the_code_of_a_page_runs(page, here):
    names: dict[str, object] = {"__name__": "__main__"}
    if page.parent.name != "tutorial" and page != README:
        run(START, names, ("python",))
    if name_of(page) in NOT_RUN:
        run(page, names, ("bash",))
    else:
        run(page, names, ("python", "bash"))


def test_no_code_goes_unseen():
    """Code in another fence, or merely indented, would not be run."""
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        assert not re.search(r"^```(?!text|json)\w+$|^    (import|with|sharpv) ", text, re.MULTILINE), name_of(page)


ROOT = DOCS.parent
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[\w-]+)?\)")


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *DOCS.rglob("*.md")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_no_link_is_dead(page):
    """Anchors too; ``make docs`` checks the same on what it builds."""
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        there = page.parent / target
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            heads = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}, anchor


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_the_site_makes_from_the_code(generated):
    parts = {name: part() for name, part in generated.PARTS.items()}
    for command in ("ask", "calibrate", "demo", "eval", "methods", "models"):
        assert f"## sharpv {command}\n" in parts["command line"]
    for name in vars(Config()):
        assert f"| `{name}` |" in parts["config"]
    assert all(f"| `{name}` |" in parts["methods"] for name in METHODS)
    assert "| `layers` |" in parts["stages"] and "| `kept` |" in parts["encodings"]
    assert "`qwen2_5_vl`" in parts["models"] and "(pocket_methods.md)" in parts["results"]


def test_markers_are_known_and_docstrings_become_markdown(generated):
    pages = [page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md")]
    used = {name for text in pages for name in generated.MARKER.findall(text)}
    assert used == set(generated.PARTS)
    made = generated.as_markdown("As :func:`~sharpv.apply` on ``x``.\n\n>>> a = 1\n>>> a\n1\n\nEnd.")
    assert made == "As `sharpv.apply` on `x`.\n\n```pycon\n>>> a = 1\n>>> a\n1\n```\n\nEnd."


def test_every_name_from_paper_to_code_exists():
    text = (DOCS / "reference" / "paper.md").read_text(encoding="utf-8")
    named = re.findall(r"`(sharpv\.[\w.]+)`", text)
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 10 and len(tests) > 15
    for name in named:
        assert pkgutil.resolve_name(name) is not None
    for path, function in tests:
        assert f"def {function}(" in (DOCS.parent / path).read_text(encoding="utf-8"), (path, function)
