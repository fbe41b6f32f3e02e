"""The page: one file without scripts, small, whatever is in it; and what a notebook and a paper get."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sharpv.models import Seen
from sharpv.report import Report
from sharpv.video import Clip
from sharpv.view.page import Asked, fragment, page
from sharpv.view.pictures import cuts, outline
from shown import CASES, HOSTILE, clip, report, said, video

LARGEST = 3_000_000


class Tags(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.mark.parametrize("case", CASES)
def test_every_picture_of_every_clip_is_on_the_page(case):
    videos, clips = CASES[case]
    tags = Tags(page([Asked(report(*videos), "What?", said("this"), said("that"))], clips))
    images = [attributes["src"] for attributes in tags.of("img")]
    assert all(source and source.startswith("data:image/webp;base64,") for source in images)
    given = [] if clips is None else clips if isinstance(clips, list) else [clips]
    assert len(set(images)) == sum(len(getattr(each, "frames", each)) for each in given)
    figures = tags.of("figure")
    assert len(figures) == sum(each.frames for each in videos)
    # what leads somewhere leads to a place on this page, and names are given once
    names = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(names) == len(set(names))
    assert {link["href"] for link in tags.of("a")} <= {f"#{name}" for name in names}


@pytest.mark.parametrize("where", ["question", "answer", "truth", "note", "title", "config", "clip"])
def test_whatever_is_in_it_stays_text(where):
    made = Report(HOSTILE if where == "config" else "sharpv", 4, [video(2)])
    asked = Asked(
        made,
        HOSTILE if where == "question" else "What?",
        said(HOSTILE if where == "answer" else "this"),
        said("that"),
        HOSTILE if where == "truth" else "",
        HOSTILE if where == "note" else "",
    )
    source = clip(2)
    if where == "clip":
        source = Clip(source.frames, source.timestamps, 2.0, 1.0, Path(HOSTILE.replace("/", "")))
    text = page([asked], source, HOSTILE if where == "title" else "")
    tags = Tags(text)
    assert not tags.of("script") and "<script" not in text and "alert(" in text
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    assert "49" not in re.sub(r"[\s\S]*<header>", "", text).split("</header>")[0]


def test_nothing_comes_from_elsewhere():
    text = page([Asked(report(video(2)), "What?")], clip(2))
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[\w+/=]+", "", text))


@pytest.mark.parametrize("pictures", ["real", "noise"])
def test_a_page_of_32_frames_is_small_and_soon_made(pictures):
    frames = np.random.default_rng(0).integers(0, 255, (32, 360, 640, 3), np.uint8)
    if pictures == "real":
        frames = np.repeat(np.repeat(frames[:, ::40, ::40], 40, axis=1), 40, axis=2)
    start = time.process_time()
    text = page([Asked(report(video(32, 14, 14)), "What?")], frames)
    assert len(text.encode()) < LARGEST
    if pictures == "real":
        assert time.process_time() - start < 2


def test_300_frames():
    text = page([Asked(report(video(300, 14, 14)), "What?")], clip(300, 270, 480))
    assert len(text.encode()) < 2 * LARGEST and len(Tags(text).of("figure")) == 300


def test_several_questions_share_what_is_the_same():
    same, other = report(video(4)), report(video(4, 2, 2))
    once = Tags(page([Asked(same, "Who?", said("a")), Asked(same, "Where?", said("b"))], clip(4)))
    assert len(once.of("figure")) == 4
    text = page([Asked(same, "Who?"), Asked(same, "Where?"), Asked(other, "When?")], clip(4))
    assert len(Tags(text).of("figure")) == 8
    assert "for “Who?”, “Where?”" in text and "for “When?”" in text


def test_an_answer_in_chinese(tmp_path):
    path = report(video(2)).save(tmp_path / "page.html", clip(2), question="视频里有什么", answer=said("一只猫。"))
    text = path.read_text(encoding="utf-8")
    assert "视频里有什么" in text and "一只猫。" in text and '<meta charset="utf-8">' in text


def test_what_is_said_is_in_words_too():
    forgotten = [[False], [True], [], [True]]
    made = report(
        video(4), quantity="similarity", measured=[[0.9], [0.1], [], [0.2]], forgotten=forgotten, withdrawn=12
    )
    text = page([Asked(made, "What?", said("this"), said("that"))], clip(4))
    assert "kept 16.7 %, pruned 83.3 %" in text and "27 kB, dense 365 kB" in text
    assert "4 layers; the video was forgotten in 2: 1, 3" in text and "layer 2: cannot forget" in text
    assert "degraded cache, every layer from 1 of 4 on" in text and "The answers differ." in text
    images = Tags(text).of("img")
    assert images[1]["alt"] == "frame 1, 0.5 s: kept 2 of 12 tokens"


def test_clips_that_are_not_the_report_s_are_refused(tmp_path):
    made = report(video(4))
    for wrong, message in [
        (clip(5), "video 0 of the report has 4 frames of tokens, made from 4 pictures, but the clip has 5"),
        ([clip(4), clip(4)], "the report is about 1 videos, got 2 clips"),
        (np.zeros((4, 8, 8), np.uint8), r"pictures must be uint8 \(T, H, W, 3\), got uint8 \(4, 8, 8\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            made.save(tmp_path / "page.html", wrong)
    with pytest.raises(TypeError, match="a clip is what read_video returns, or an array of pictures, got str"):
        made.save(tmp_path / "page.html", "clip.mp4")
    fused = report(video(4, seen=Seen(pictures=2)))
    with pytest.raises(ValueError, match="made from 7 to 8 pictures, but the clip has 4"):
        fused.figure(clip(4))
    with pytest.raises(ValueError, match="a page needs at least one report"):
        page([])
    assert not list(tmp_path.iterdir())


def test_a_notebook_shows_it_small():
    made = report(video(40))
    tags = Tags(made._repr_html_())
    assert len(tags.of("figure")) == 24 and not tags.of("img") and not tags.of("input")
    assert "and 16 more frames" in made._repr_html_()
    assert len(Tags(fragment([Asked(made)], clip(40))).of("img")) == 40


@pytest.mark.parametrize("case", CASES)
def test_a_figure_for_papers(case, tmp_path):
    videos, clips = CASES[case]
    made = report(*videos).figure(clips, frames=2)
    shown = sum(min(2, each.frames) + 1 for each in videos)
    assert len(made.axes) == shown
    made.savefig(tmp_path / "figure.png", dpi=40)
    with pytest.raises(ValueError, match="frames must be a whole number of at least 1, got 0"):
        report(*videos).figure(clips, frames=0)


def test_outlines_go_around_what_is_kept():
    assert outline([], 2, 2) == ""
    assert outline([0], 2, 2) == "M0 0h1M0 1h1M0 0v1M1 0v1"
    assert outline(range(4), 2, 2) == "M0 0h2M0 2h2M0 0v2M2 0v2"


def test_cuts_are_found_and_a_dissolve_counts_once():
    dark, light = np.full((8, 8, 3), 20.0), np.full((8, 8, 3), 230.0)
    frames = np.stack([dark, dark, light, light, dark, light, light])
    frames[4] = (dark + light) / 2
    assert cuts(frames.astype(np.uint8)) == [2, 4]
    assert cuts(frames[:1].astype(np.uint8)) == []


def test_encoded_patches_are_drawn_where_some_were_not():
    part = video(2)
    object.__setattr__(part, "grid", (6, 8))
    object.__setattr__(part, "encoded", [list(range(48)), [0, 1]])
    text = page([Asked(report(part), "What?")], clip(2))
    assert 'class="encoded" d="M0 0h2M0 1h2M0 0v1M2 0v1"' in text and "encoded 2<" in text
