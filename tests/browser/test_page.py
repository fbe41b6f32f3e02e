"""The page in a browser without a network: whatever is on it, at every width, light and dark, by keyboard."""

from __future__ import annotations

import pytest

from benchmarks.pages import RESULTS
from sharpv.view.page import Asked, page
from shown import CASES, HOSTILE, clip, report, said, video

FORGOTTEN = [[False], [True], [], [True]]


def made(case: str) -> str:
    if case == "hostile":
        return page(
            [Asked(report(video(2)), HOSTILE, said(HOSTILE), said(HOSTILE), HOSTILE, HOSTILE)], clip(2), HOSTILE
        )
    if case == "300 frames":
        return page([Asked(report(video(300, 14, 14)), "What?", said("this"), said("that"))], clip(300))
    if case == "Chinese":
        return page([Asked(report(video(2)), "视频里有什么", said("一只猫。"), said("一只猫。"))], clip(2))
    if case == "three questions":
        asked = [Asked(report(video(4)), f"What is {name}?", said("this"), said("that"), "that") for name in "abc"]
        return page([*asked, Asked(report(video(4, 2, 2)), "Why?")], clip(4))
    if case == "layers":
        measured = [[0.9], [0.1], [], [0.2]]
        return page([Asked(report(video(4), quantity="x", measured=measured, forgotten=FORGOTTEN))], clip(4))
    videos, clips = CASES[case]
    return page([Asked(report(*videos), "What?", said("this"), said("that"))], clips)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("case", [*CASES, "hostile", "300 frames", "Chinese", "three questions", "layers"])
def test_it_opens_anywhere_and_shuts_nobody_out(case, scheme, width, opened, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(made(case), encoding="utf-8")
    shown = opened(path.as_uri(), width, scheme, offline=True)
    assert shown.page.locator("figure").count() > 0
    broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert shown.page.evaluate(broken) == 0
    assert shown.overflow() <= 0
    assert shown.barriers() == []
    assert shown.faults == [] and shown.outside() == []


def test_barriers_are_found(opened, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<html><title>x</title><img src='data:,'><p style='color: #ccc; background: #fff'>pale</p></html>")
    found = " ".join(opened(path.as_uri()).barriers())
    assert "image-alt" in found and "color-contrast" in found


def test_the_keyboard_reaches_all_views(opened, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(made("portrait"), encoding="utf-8")
    shown = opened(path.as_uri())
    heat, dropped = shown.page.locator(".heat").first, shown.page.locator("path.dropped").first
    assert not heat.is_visible() and dropped.is_visible()
    shown.page.get_by_label("what was kept").focus()
    shown.page.keyboard.press("ArrowRight")
    assert shown.page.get_by_label("scores").is_checked() and heat.is_visible() and not dropped.is_visible()
    shown.page.keyboard.press("ArrowRight")
    assert shown.page.get_by_label("the clip").is_checked() and not heat.is_visible()
    before = shown.page.locator("figure").first.bounding_box()
    shown.page.get_by_label("large").check()
    after = shown.page.locator("figure").first.bounding_box()
    assert before and after and after["width"] > 1.5 * before["width"]
    shown.page.locator("svg.plot a").nth(2).focus()
    shown.page.keyboard.press("Enter")
    assert shown.page.url.endswith("f2")


def test_what_lies_over_a_picture_lies_where_its_tokens_are(opened, tmp_path):
    """The outline of the first token of a cropped clip begins where the middle square begins."""
    path = tmp_path / "page.html"
    path.write_text(made("cropped"), encoding="utf-8")
    shown = opened(path.as_uri())
    picture = shown.page.locator("figure img").first.bounding_box()
    over = shown.page.locator("figure svg.over").first.bounding_box()
    assert picture and over
    square = picture["height"]
    assert abs(over["x"] - picture["x"] - (picture["width"] - square) / 2) < 1.5 and abs(over["width"] - square) < 1.5
    assert abs(over["height"] - square) < 1.5


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_comparison_is_sorted_and_its_lines_hidden(scheme, width, opened):
    shown = opened((RESULTS / "pocket_methods.html").as_uri(), width, scheme, offline=True)
    assert shown.barriers() == [] and shown.overflow() <= 0
    table = shown.page.locator("table.sortable").first
    button = table.get_by_role("button", name="accuracy")
    button.focus()
    for key, way in (("Enter", "descending"), ("Space", "ascending")):
        shown.page.keyboard.press(key)
        values = [float(text) for text in table.locator("tbody td:nth-child(3)").all_inner_texts()]
        assert values == sorted(values, reverse=way == "descending")
        assert table.locator(f"th[aria-sort={way}]").inner_text().startswith("accuracy")
    line = shown.page.locator(".line.m1")
    assert line.is_visible()
    shown.page.locator("#m1").uncheck()
    assert not line.is_visible()
    assert shown.faults == [] and shown.outside() == []
