"""Every example runs as it is copied, on a small local checkpoint, and stays short."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

import checkpoints
from sharpv import pocket

SERVED = ("serve_and_ask",)
"""Those that ask a server: tests/integrations/vllm runs them."""
EXAMPLES = sorted(path for path in (Path(__file__).parents[1] / "examples").glob("*.py") if path.stem not in SERVED)
CLIP, OTHER, QUESTION = pocket.sample_clip("mover"), pocket.sample_clip("cut"), "What happens?"
CALLS = {
    "batch_of_clips": ([CLIP, OTHER], "mover.mp4, kept "),
    "calibrate_and_save": ([CLIP, "--save", "mine.json"], "layers keep the video"),
    "encode_what_changed": ([CLIP, QUESTION], "of the kept tokens are the same"),
    "many_questions": ([CLIP, QUESTION, "Where is it?"], "Where is it?"),
    "qwen_one_clip": ([CLIP, QUESTION, "--frames", 8], "retention before the LLM: kept 25.0 %"),
}
"""What each is called with, and a part of what it then prints."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("examples"), "qwen2_5_vl")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path, checkpoint, tmp_path, monkeypatch, capsys):
    arguments, printed = CALLS[path.stem]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments), "--model", str(checkpoint)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr()
    assert not end.value.code, said.err
    assert printed in said.out and "visual tokens" in said.out
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40


def test_a_question_on_the_shared_cache_is_answered_as_in_a_run_of_its_own(checkpoint, capsys):
    many, alone = (
        runpy.run_path(str(EXAMPLES[0].with_name(name))) for name in ("many_questions.py", "qwen_one_clip.py")
    )
    many["main"](CLIP, [QUESTION, "Where?"], str(checkpoint))
    _, *shared = capsys.readouterr().out.splitlines()
    for question, line in zip((QUESTION, "Where?"), shared, strict=False):
        alone["main"](CLIP, question, str(checkpoint))
        (own,) = (said for said in capsys.readouterr().out.splitlines() if said.startswith("pruned: "))
        assert own.removeprefix("pruned: ").strip() in line
