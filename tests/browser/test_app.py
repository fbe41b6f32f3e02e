"""The app in a browser: a clip is uploaded, a question asked, the budget moved, the page taken home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharpv import pocket

WAIT = 60_000


class App:
    """``sharpv app`` as somebody starts it, with a folder of its own for temporary files."""

    def __init__(self, temporary: Path) -> None:
        self.temporary = temporary
        environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "sharpv", "app", "--max-megabytes", "1", "--max-seconds", "60"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        watchdog = threading.Timer(180, self.process.kill)
        watchdog.start()
        assert self.process.stdout is not None
        line = next((line for line in self.process.stdout if line.startswith("open ")), "")
        watchdog.cancel()
        assert line, "the app did not start"
        self.address = line.split()[1]

    def uploads(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    started = App(tmp_path_factory.mktemp("app"))
    yield started
    if started.process.poll() is None:
        started.stop()


def ask(shown, question=None):
    if question is not None:
        shown.page.locator("#question textarea, #question input").fill(question)
    shown.page.locator("#ask").click()
    shown.page.locator("#shown .answer, #shown [role=alert]").first.wait_for(timeout=WAIT)


def test_it_listens_to_this_machine_only(app):
    assert app.address.startswith("http://127.0.0.1:")


def test_a_sample_is_asked_and_the_budget_moved(app, opened, tmp_path):
    shown = opened(app.address)
    ask(shown)
    results = shown.page.locator("#shown")
    assert results.locator(".answer").count() == 2 and "kept 25.0 %, pruned 75.0 %" in results.inner_text()
    slider = shown.page.locator("#kept input[type=range]")
    slider.focus()
    slider.press("ArrowRight")
    slider.dispatch_event("pointerup")
    results.get_by_text("kept 26.0 %, pruned 74.0 %").first.wait_for(timeout=WAIT)
    shown.page.locator("#free input").check()
    results.get_by_text("Asked for: sharpv", exact=True).wait_for(timeout=WAIT)
    with shown.page.expect_download(timeout=WAIT) as download:
        shown.page.locator("#download").click()
    page = tmp_path / "taken.html"
    download.value.save_as(page)
    home = opened(page.as_uri(), width=390, offline=True)
    assert home.page.locator("figure img").count() == 8 and home.page.locator(".answer").count() == 2
    assert home.faults == [] and home.outside() == []
    assert shown.faults == [] and shown.outside(app.address) == []


def test_a_clip_is_uploaded(app, opened):
    shown = opened(app.address, width=390)
    shown.page.locator("#picked").get_by_text("my own clip").click()
    shown.page.locator("#video input[type=file]").set_input_files(str(pocket.sample_clip("cut")), timeout=WAIT)
    shown.page.locator("#video video").wait_for(timeout=WAIT)
    ask(shown, "<script>alert(1)</script> What is there?")
    assert shown.page.locator("#shown figure img").count() == 8
    assert "<script>alert(1)</script> What is there?" in shown.page.locator("#shown").inner_text()
    assert shown.overflow() <= 0 and shown.faults == []
    assert any(path.name == "cut.mp4" for path in app.uploads())


def test_a_bad_clip_and_no_question_are_refused_in_a_sentence(app, opened, tmp_path):
    bad = tmp_path / "holiday.mp4"
    bad.write_text("not a video\n" * 100)
    shown = opened(app.address)
    shown.page.locator("#picked").get_by_text("my own clip").click()
    shown.page.locator("#video input[type=file]").set_input_files(str(bad), timeout=WAIT)
    shown.page.locator("#video video").wait_for(state="attached", timeout=WAIT)
    ask(shown, "What is there?")
    said = shown.page.locator("#shown [role=alert]").inner_text()
    assert said.startswith("Cannot read video 'holiday.mp4': ") and str(app.temporary) not in said
    shown.page.locator("#picked").get_by_text("static").click()
    shown.page.locator("#question textarea, #question input").fill("")
    ask(shown, " ")
    shown.page.get_by_text("Ask a question about the clip.").wait_for(timeout=WAIT)


def test_an_upload_that_is_too_large_is_refused(app, opened, tmp_path):
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(2_000_000))
    shown = opened(app.address)
    shown.page.locator("#picked").get_by_text("my own clip").click()
    shown.page.locator("#video input[type=file]").set_input_files(str(large), timeout=WAIT)
    shown.page.get_by_text("exceed the maximum allowed size").first.wait_for(timeout=WAIT)
    assert not any(path.name == "large.mp4" for path in app.uploads())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_shuts_nobody_out(app, opened, scheme):
    shown = opened(app.address, scheme=scheme)
    ask(shown)
    assert shown.barriers("#shown") == []


def test_nothing_is_left_when_it_ends(app):
    assert app.uploads()
    assert app.stop() == 0
    assert app.uploads() == []
