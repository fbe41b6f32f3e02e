"""The app's face, in gradio."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio

from ..methods import METHODS
from ..pocket import sample_clip
from ..view.page import fragment, page
from .desk import SAMPLES, Desk, Known, Wish, sample

OWN = "my own clip"
KEPT = 25
"""Per cent that the slider starts with."""
KEEP_FILES = 3600
"""Seconds after which an upload is removed while the app runs; when it stops, all are."""
WAITING = 16
"""Questions that may wait."""


def serve(desk: Desk, host: str = "127.0.0.1", port: int | None = None, ready: Callable[[str], object] = str) -> None:
    """Serve the app until it is interrupted or terminated; what was uploaded is then removed.

    Args:
        desk: answers.
        host: the address to listen on; the default is reached from this machine only.
        port: None: the first that is free, from 7860 on.
        ready: is given the address when the app can be opened.

    Raises:
        OSError: the port is taken.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="sharpv-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # gradio asks for it in no other way
        try:
            _launch(desk, Path(folder), host, port, ready)
        finally:
            os.environ.pop("GRADIO_TEMP_DIR")
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before


def _launch(desk: Desk, folder: Path, host: str, port: int | None, ready: Callable[[str], object]) -> None:
    app = build(desk, folder)
    app.queue(max_size=WAITING)
    _, local, _ = app.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        allowed_paths=[str(sample_clip().parent)],
        max_file_size=f"{desk.limits.megabytes}mb",
        # fonts that the machine has: nothing is fetched from elsewhere
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    )
    ready(local)
    try:
        app.block_thread()
    finally:
        app.close(verbose=False)


def build(desk: Desk, folder: Path) -> Any:
    """The interface; pages for download are written below ``folder``."""

    def ask(
        video: str | None, question: str, frames: float, method: str, free: bool, kept: float, known: Known | None,
        request: gradio.Request,
    ) -> tuple[str, Any, Known | None]:  # fmt: skip
        wish = Wish(video, question or "", int(frames), method, None if free else kept / 100)
        try:
            asked, clip, known = desk.ask(wish, known)
            download = folder / "pages" / str(request.session_hash) / "report.html"
            download.parent.mkdir(parents=True, exist_ok=True)
            download.write_text(page([asked], clip), encoding="utf-8")
            return fragment([asked], clip), gradio.DownloadButton(value=str(download), interactive=True), known
        except (ValueError, OSError, RuntimeError) as error:
            return refusal(str(error)), gradio.DownloadButton(value=None, interactive=False), known

    def leave(request: gradio.Request) -> None:
        shutil.rmtree(folder / "pages" / str(request.session_hash), ignore_errors=True)

    first_clip, first_question = sample(SAMPLES[0])
    with gradio.Blocks(title="sharpv", analytics_enabled=False, fill_width=True, delete_cache=(600, KEEP_FILES)) as app:
        known = gradio.State()
        gradio.Markdown("# sharpv\nAsk about a clip, and see which parts of it the model still reads. " + desk.note)
        with gradio.Row():
            with gradio.Column(scale=1, min_width=300):
                picked = gradio.Radio([*SAMPLES, OWN], value=SAMPLES[0], label="Clip", elem_id="picked")
                video = gradio.Video(
                    first_clip, label="The clip", sources=["upload"], height=240, elem_id="video", buttons=[]
                )
                question = gradio.Textbox(
                    first_question, label="Question", max_length=desk.limits.letters, elem_id="question"
                )
                method = gradio.Dropdown(sorted(METHODS), value="sharpv", label="Method", elem_id="method")
                free = gradio.Checkbox(value=False, label="The content decides how much", elem_id="free")
                kept = gradio.Slider(1, 100, value=KEPT, step=1, label="Kept, % of the visual tokens", elem_id="kept")
                frames = gradio.Slider(
                    1, desk.limits.frames, value=min(8, desk.limits.frames), step=1, label="Frames", elem_id="frames"
                )
                button = gradio.Button("Ask", variant="primary", elem_id="ask")
                download = gradio.DownloadButton("Download the page", interactive=False, elem_id="download")
            with gradio.Column(scale=3, min_width=320):
                shown = gradio.HTML(elem_id="shown", apply_default_css=False)
        picked.input(
            lambda name: (None, "") if name == OWN else sample(name),
            picked,
            [video, question],
            api_visibility="private",
        )
        video.upload(lambda: OWN, None, picked, api_visibility="private")
        free.input(lambda on: gradio.Slider(interactive=not on), free, kept, api_visibility="private")
        # one question at a time: a model is pruned for all who ask it
        given = [video, question, frames, method, free, kept, known]
        for event in (button.click, question.submit, kept.release, method.input, free.input):
            event(
                ask, given, [shown, download, known], concurrency_limit=1, concurrency_id="model",
                api_visibility="private", show_progress_on=shown,
            )  # fmt: skip
        app.unload(leave)
    return app


def refusal(sentence: str) -> str:
    """What stands in the place of an answer."""
    return f'<p role="alert" style="border-left: .3rem solid #b34700; padding: .4rem .75rem">{escape(sentence)}</p>'
