"""The command line: real clips through local checkpoints, and wrong input in one sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from transformers import GPT2Config
from typer.testing import CliRunner, Result

import checkpoints
import sharpv
from sharpv.cli.app import app
from sharpv.methods import METHODS
from sharpv.models import FAMILIES


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a square that moves, as mp4."""
    path = tmp_path_factory.mktemp("clips") / "square.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for step in range(16):
            picture = np.full((48, 64, 3), 90, np.uint8)
            picture[16:32, 2 * step : 2 * step + 16] = (220, 40, 40)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return path


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp(request.param), request.param)


def test_ask_a_local_checkpoint(clip, checkpoint):
    options = ("--model", checkpoint, "--max-new-tokens", 5, "--json")
    result = run("ask", clip, "What moves?", *options, "--compare", "--frames", 7, "--retention", 0.25)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    tokens = facts["report"]["visual_tokens"]
    assert tokens["kept"] == round(0.25 * tokens["total"])
    assert facts["answers"].keys() == {"dense", "pruned"} and facts["answers"]["pruned"]["tokens"] == 5
    assert facts["clip"]["frames"] == 7 and facts["report"]["memory"] is None
    encode = ("--encode", "changed:threshold=0", "--check-encoding")
    checked = json.loads(run("ask", clip, "What moves?", *options, "--retention", 0.25, *encode).stdout)
    assert 0 < checked["encoding_check"]["encoded"] <= 1 and checked["report"]["videos"][0]["patches"] > 0
    limited = run("ask", clip, "What moves?", *options, "--fps", 2, "--max-tokens", 6, "--memory", 0.9)
    facts = json.loads(limited.stdout)
    assert facts["clip"]["frames"] == 4 and facts["report"]["visual_tokens"]["kept"] <= 6
    assert len(facts["report"]["memory"]["measured"]) == 4


@pytest.mark.parametrize("family", [name for name in checkpoints.PROCESSORS if name != "pllava"])
def test_ask_every_family_about_a_still_picture_and_a_clip(clip, family, tmp_path):
    """transformers' Auto classes know no PLLaVA; a still is a clip of one frame."""
    folder, still = checkpoints.write(tmp_path / "model", family), tmp_path / "still.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(still)
    for source, frames in ((still, 8), (clip, 5)):
        options = ("--model", folder, "--frames", frames, "--max-new-tokens", 2, "--json", "--compare")
        result = run("ask", source, "What is it?", *options)
        assert result.exit_code == 0, result.output
        facts = json.loads(result.stdout)
        assert 0 < facts["report"]["visual_tokens"]["kept"] <= facts["report"]["visual_tokens"]["total"]


def test_ask_prints_the_answer_the_report_and_warnings(clip, checkpoint):
    result = run("ask", clip, "What moves?", "--model", checkpoint, "--max-new-tokens", 5, "--memory", 1)
    assert result.exit_code == 0, result.output
    assert "visual tokens (kept" in result.stdout and "visual KV dropped in" in result.stdout
    assert "warning: sample 0: degraded cache" in " ".join(result.stderr.split())


def test_what_calibrate_finds_is_what_ask_takes(clip):
    options = ("--question", "What moves?", "--question", "Describe the video.", "--frames", 4)
    result = run("calibrate", clip, *options, "--max-new-tokens", 6)
    assert result.exit_code == 0, result.output
    memory = result.stdout.split()[-1]
    assert memory.startswith("layers:")
    facts = json.loads(run("calibrate", clip, *options, "--max-new-tokens", 6, "--json").stdout)
    assert memory == f"layers:{'+'.join(map(str, facts['keep']))}"
    assert len(facts["harm"]) == 5 and facts["answers"] == 2 and facts["together"] <= 0.01
    asked = json.loads(run("ask", clip, "What moves?", "--frames", 4, "--memory", memory, "--json").stdout)
    forgotten = asked["report"]["memory"]["forgotten"]
    assert [index for index, row in enumerate(forgotten) if not any(row)] == facts["keep"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tolerance", 0), "tolerance must be above 0, got 0.0"),
        (("--retention", 0), "retention is the kept share and must lie in (0, 1], got 0.0"),
        (("--method", "magic"), "unknown method 'magic'"),
        (("--method", "vtw"), "'vtw' acts inside the language model: pass memory='vtw'"),
        (("--tolerance", -1, "--model", "/no/such/folder"), "tolerance must be above 0, got -1.0"),
    ],
)
def test_calibrate_refuses(clip, options, message):
    _assert_refused(run("calibrate", clip, "--question", "What moves?", *options), message)


def test_ask_writes_a_page(clip, checkpoint, tmp_path):
    page = tmp_path / "report.html"
    options = ("--model", checkpoint, "--max-new-tokens", 5, "--frames", 5, "--retention", 0.25, "--report", page)
    result = run("ask", clip, "What <b>moves</b>?", *options, "--compare")
    assert result.exit_code == 0, result.output
    text = page.read_text(encoding="utf-8")
    assert text.count("<img ") == 5 and "What &lt;b&gt;moves&lt;/b&gt;?" in text
    assert text.count('class="answer"') == 2 and "square.mp4" in text
    for wrong, message in [
        (tmp_path / "report.txt", "--report writes a page, an .html file, got"),
        (tmp_path / "nowhere" / "report.html", "there is no folder"),
    ]:
        refused = run("ask", clip, "What?", "--report", wrong)
        assert refused.exit_code == 2 and message in " ".join(refused.stderr.split())


def test_eval_writes_a_page(tmp_path):
    page = tmp_path / "methods.html"
    asked = ("--methods", "sharpv,uniform", "--retentions", "0.5,0.25", "--videos", 2, "--report", page, "--json")
    result = run("eval", *asked)
    assert result.exit_code == 0, result.output
    facts, text = json.loads(result.stdout), page.read_text(encoding="utf-8")
    assert len(facts["rows"]) == 6 and text.count("<polyline") == 3 and ">nan<" not in text


def wrong_files(folder: Path, clip: Path) -> dict[str, Path]:
    files = {name: folder / name for name in ("missing.mp4", "text.mp4", "truncated.mp4", "empty.mp4")}
    files["text.mp4"].write_text("not a video\n" * 100)
    files["truncated.mp4"].write_bytes(clip.read_bytes()[:900])
    files["empty.mp4"].touch()
    return files


@pytest.mark.parametrize("name", ["missing.mp4", "text.mp4", "truncated.mp4", "empty.mp4"])
def test_wrong_files_end_with_one_sentence(clip, tmp_path, name):
    result = run("ask", wrong_files(tmp_path, clip)[name], "What moves?")
    _assert_refused(result, f"error: Cannot read video '{tmp_path / name}'")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--retention", 1.5), "retention is the kept share and must lie in (0, 1], got 1.5"),
        (("--check-encoding",), "--check-encoding has nothing to check: pass --encode changed or kept"),
        (("--encode", "changed:-0.1"), "threshold must be a finite number of at least 0, got -0.1"),
        (("--frames-at-once", 0), "frames_at_once must be a whole number of at least 1, got 0"),
        (
            ("--method", "magic"),
            "unknown method 'magic'; known: cdpruner, divprune",
        ),
        (("--method", "uniform"), "method 'uniform' keeps a fixed share: pass retention="),
        (("--memory", "much"), "unknown memory 'much'; known: contribution, cosine, fastv, layers, vtw"),
        (("--memory", "layers:9"), "this model has 5 decoder layers, counted from 0; got keep=(9,)"),
        (("--memory", "7"), "must lie in [-1, 1], got 7.0"),
        (("--max-tokens", 0), "max_tokens must be a whole number of at least 1, got 0"),
        (("--frames", 0), "frames must be a whole number of at least 1, got 0"),
        (("--frames", 4, "--fps", 2), "both given"),
        (("--fps", -1), "fps must be a finite number above 0, got -1.0"),
        (("--device", "abacus"), "device 'abacus' is not available"),
        (("--dtype", "int4"), "dtype must be auto, float32, float16 or bfloat16, got 'int4'"),
        (("--model", "no/such-model-here"), "cannot load the model 'no/such-model-here'"),
        (("--model", "/no/such/folder"), "cannot load the model '/no/such/folder': there is no such directory"),
    ],
)
def test_wrong_options_end_with_one_sentence(clip, options, message):
    _assert_refused(run("ask", clip, "What moves?", *options), message)


def test_pocket_says_what_it_knows(clip):
    result = run("ask", clip, "What moves?")
    assert result.exit_code == 0
    assert "pocket knows only its own small synthetic world" in " ".join(result.stderr.split())


def test_a_family_without_support_is_refused_before_its_weights_are_read(clip, tmp_path):
    GPT2Config(n_layer=1).save_pretrained(tmp_path)
    _assert_refused(
        run("ask", clip, "What moves?", "--model", tmp_path), "model type 'gpt2' is not supported; supported:"
    )


def test_unknown_options_and_missing_arguments():
    assert run("ask").exit_code == 2
    assert run("ask", "a.mp4", "b", "--colour", "red").exit_code == 2
    assert run("serve").exit_code == 2


def test_tables(monkeypatch):
    monkeypatch.setattr("sharpv.cli.lists.out", Console(width=300))
    methods, models = run("methods"), run("models")
    assert methods.exit_code == models.exit_code == 0
    assert all(name in methods.stdout for name in METHODS)
    assert all(family.name in models.stdout for family in FAMILIES)


@pytest.mark.parametrize("name", ["mover", "cut", "static"])
def test_demo(name):
    result = run("demo", "--clip", name, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert 5 <= len(facts["questions"]) <= 8
    tokens = facts["report"]["visual_tokens"]
    assert 0 < tokens["kept"] < tokens["total"] == 32 * 49
    right = {who: sum(q[who]["text"] == q["truth"] for q in facts["questions"]) for who in ("dense", "pruned")}
    assert right["dense"] > len(facts["questions"]) / 2 and right["pruned"] >= right["dense"] - 2


def test_demo_for_a_person_names_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = run("demo")
    assert result.exit_code == 0, result.output
    assert "right answers" in result.stdout and "1,568" in result.stdout and "patches through" in result.stdout
    assert "sharpv ask YOUR_CLIP" in result.stdout
    (page,) = tmp_path.iterdir()
    assert result.stdout.strip().endswith(page.as_uri()) and page.name.startswith("sharpv-demo-")
    assert "7 questions" in page.read_text(encoding="utf-8")


def test_demo_writes_the_page_where_it_is_told(tmp_path):
    result = run("demo", "--report", tmp_path / "look.html", "--json")
    assert json.loads(result.stdout) and "look.html" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["look.html"]


def test_a_clip_that_is_not_there_is_no_demo():
    _assert_refused(run("demo", "--clip", "opera"), "no clip 'opera'; known clips:")


def test_the_app_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "sharpv.app.interface", raising=False)
    _assert_refused(run("app"), "error: the app needs gradio: pip install 'sharpv[app]'")


def _assert_refused(result: Result, message: str) -> None:
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split()) and len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.output and result.stdout == ""


@pytest.mark.parametrize(
    ("command", "encoding"),
    [
        ("demo", "cp1252"),
        ("demo", "utf-8"),
        ("models", "ascii"),
        ("methods", "cp1252"),
        ("methods", "latin-1"),
        ("methods", "ascii"),
        ("--help", "cp1252"),
    ],
)
def test_any_encoding_of_the_terminal_will_do(command, encoding, tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "sharpv", command], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode(encoding)
    text = done.stdout.decode(encoding)
    if command == "demo":
        assert ("▁" in text) == (encoding == "utf-8") and ("1111" in text) == (encoding != "utf-8")


def test_an_answer_that_the_terminal_cannot_show_is_no_error(clip, checkpoint):
    code = f"""
import sys
from sharpv import asking
from sharpv.cli.app import app
answer = asking.answer
asking.answer = lambda *args: answer(*args) and asking.Answer("\\u4e00 \\u2603", 2, 1.0, 1.0, 0.5)
app(["ask", {str(clip)!r}, "What?", "--model", {str(checkpoint)!r}, "--max-new-tokens", "2"])
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert done.returncode == 0 and done.stdout.startswith(b"? ?"), done.stderr


@pytest.mark.parametrize("name", ["methods", "stages", "encodings", "models"])
def test_lists_are_readable_on_80_columns_and_for_machines(name, monkeypatch):
    monkeypatch.setattr("sharpv.cli.lists.out", Console(width=80))
    facts = json.loads(run(name, "--json").stdout)
    lines = run(name).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for entry in facts:
        assert f"\n{entry['name']} " in f"\n{text}", entry["name"]
    # no word is broken: each word of a line is a word of what was to be said
    said = " ".join(str(value) for entry in facts for value in entry.values())
    long = {word for line in lines for word in re.findall(r"[\w/.+-]{12,}", line)}
    footer = " ".join(lines[-2:])
    assert all(word in said or word in footer for word in long), long


QUICK = [
    (["--help"], 0),
    (["methods"], 0),
    (["stages", "--json"], 0),
    (["ask", "--help"], 0),
    (["ask", "x.mp4", "What?", "--retention", "2"], 2),
    (["ask", "x.mp4", "What?", "--method", "magic"], 2),
    (["ask", "x.mp4", "What?", "--memory", "layers:1+1"], 2),
    (["ask", "x.mp4", "What?", "--config", "none.json"], 2),
    (["ask", "x.mp4", "What?", "--nonsense"], 2),
    (["ask", "x.mp4", "What?", "--report", "page.txt"], 2),
    (["app", "--help"], 0),
    (["ask", "x.mp4", "What?"], 2),
]


@pytest.mark.parametrize(("command", "code"), QUICK, ids=str)
def test_what_needs_no_model_needs_no_torch(command, code):
    """So it answers at once: docs/explanation/speed.md has the figures."""
    watched = f"""
import sys
from sharpv.cli.app import app
try:
    app({command!r})
finally:
    print([name for name in ("torch", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_would_be_written_last_is_checked_first(clip, tmp_path):
    missing = tmp_path / "none" / "file.svg"
    for command in (
        ("eval", "--videos", 1, "--plot", missing),
        ("eval", "--videos", 1, "--report", missing.with_suffix(".html")),
        ("ask", clip, "What?", "--report", missing.with_suffix(".html")),
        ("demo", "--report", missing.with_suffix(".html")),
        ("calibrate", clip, "--question", "What?", "--save", missing),
    ):
        result = run(*command)
        assert result.exit_code == 2 and f"there is no folder {missing.parent}" in " ".join(result.stderr.split())


def test_a_configuration_from_a_file_and_options_over_it(clip, checkpoint, tmp_path):
    sharpv.Config("uniform", retention=0.5).save(tmp_path / "mine.json")
    options = ("--model", checkpoint, "--max-new-tokens", 2, "--json", "--config", tmp_path / "mine.json")
    facts = json.loads(run("ask", clip, "What?", *options).stdout)
    assert facts["report"]["config"] == "uniform retention=0.5"
    facts = json.loads(run("ask", clip, "What?", *options, "--retention", 0.25, "--positions", "packed").stdout)
    assert facts["report"]["config"] == "uniform retention=0.25 positions=packed"
    sharpv.Config(memory=0.2).save(tmp_path / "mine.json")
    refused = run("calibrate", clip, "--question", "What?", "--config", tmp_path / "mine.json")
    assert refused.exit_code == 2 and "sets memory, which this command does not take" in " ".join(
        refused.stderr.split()
    )
