"""The house: imports run one way, every room says what it is for, and the door is small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sharpv

ROOT = Path(sharpv.__file__).parent
ORDER = (
    ("checks", "lazy", "registry", "versions", "words"),
    ("methods",),
    ("models", "kvcache"),
    ("vision",),
    ("config",),
    ("prompt", "covers"),
    ("view",),
    ("signatures",),
    ("report",),
    ("reading",),
    ("request", "modes"),
    ("calls",),
    ("pruning",),
    ("door",),
    ("calibration", "video", "pocket", "embedded"),
    ("asking", "encoding_check"),
    ("evaluation", "sessions", "app"),
    ("cli", "integrations"),
    ("__main__",),
)
"""Rooms and files from the ground up: each may import from those before it, and from its neighbours."""
RANK = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def imported(path: Path) -> set[str]:
    """Modules of this package that a file imports, at its head or inside a function; types alone do not count."""
    tree = ast.parse(path.read_text())
    module = ("sharpv", *path.relative_to(ROOT).with_suffix("").parts)
    package = module[:-1]
    typing = {
        node for block in ast.walk(tree) if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for part in block.body for node in ast.walk(part)
    }  # fmt: skip
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in typing:
            base = package[1 : len(package) - node.level + 1]
            for alias in node.names:
                found.add(".".join([*base, node.module or sharpv._HOMES.get(alias.name, alias.name)]))
    return found


def room_of(name: str) -> str:
    return name.split(".")[0]


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for name in imported(path):
        other = room_of(name)
        if other == room or other.startswith("__"):
            continue
        assert RANK[other] <= RANK[room], f"{path.relative_to(ROOT)} imports {name}"


def test_no_two_rooms_import_each_other():
    rooms: dict[str, set[str]] = {}
    for path in FILES:
        room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        rooms.setdefault(room, set()).update(map(room_of, imported(path)))
    for room, others in rooms.items():
        for other in others - {room}:
            assert room not in rooms.get(other, set()), f"{room} and {other} import each other"


def test_a_method_never_sees_a_model_and_a_family_never_a_method():
    for path in (ROOT / "methods").glob("*.py"):
        assert not {"models", "pruning", "prompt"} & set(map(room_of, imported(path))), path
        assert "transformers" not in path.read_text(), path
    for path in (ROOT / "models").rglob("*.py"):
        assert {name for name in imported(path) if room_of(name) == "methods"} <= {"methods.budget"}, path


@pytest.mark.parametrize("room", sorted(path.parent for path in ROOT.glob("*/__init__.py")), ids=lambda path: path.name)
def test_every_room_says_what_it_is_for(room):
    words = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    assert words and len(words.split()) > 15, room


def test_the_door_is_small_and_whole():
    assert len(sharpv.__all__) < 20
    for name in sharpv.__all__:
        assert getattr(sharpv, name) is not None and name in dir(sharpv)
    with pytest.raises(AttributeError, match="module 'sharpv' has no attribute 'Handle'; it has PAPER, Budget, Config"):
        sharpv.Handle  # noqa: B018


def test_files_are_not_too_long():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 300, path
