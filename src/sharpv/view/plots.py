"""Plots as inline SVG: they take their colours from the page, and what they show is said in words too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from ..report import Report, VideoReport

WIDTH = 720


def timeline(video: VideoReport, key: str, names: Sequence[str], cuts: Sequence[int], linked: bool = True) -> Markup:
    """Kept tokens of each frame as bars, a dashed line before each frame with which a new scene begins.

    Args:
        key: of the video; bars lead to ``#v{key}f{frame}``.
        names: what each frame is called.
        cuts: frames before which a line is drawn.
        linked: whether the bars are links.
    """
    height, bottom, left, size = 134, 104, 48, video.tokens_per_frame
    step = (WIDTH - left) / video.frames
    bar = max(step * 0.86, min(step, 1.5))
    parts = [_axis(left, value, bottom - 88 * value / size, str(value)) for value in (0, size)]
    for frame, kept in enumerate(video.kept_per_frame):
        x, tall = left + frame * step, 88 * kept / size
        shape = Markup(
            '<rect class="room" x="{:.1f}" y="{}" width="{:.1f}" height="88"/>'
            '<rect class="kept" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
            "<title>{}: kept {} of {} tokens</title>"
        ).format(x, bottom - 88, bar, x, bottom - tall, bar, tall, names[frame], kept, size)
        # many tiny targets would be a burden for whoever uses the keyboard
        parts.append(_link(f"v{key}f{frame}", shape) if linked and video.frames <= 64 else _group(shape))
    for frame in cuts:
        x = left + frame * step - (step - bar) / 2
        parts.append(
            Markup('<path class="cut" d="M{:.1f} 6V{}"/><text class="cut" x="{:.1f}" y="12">cut</text>').format(
                x, bottom, x + 4
            )
        )
    for frame in sorted({0, video.frames // 2, video.frames - 1}):
        anchor = "start" if frame == 0 else "end" if frame == video.frames - 1 else "middle"
        x = left + frame * step + {"start": 0.0, "middle": bar / 2, "end": bar}[anchor]
        parts.append(Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(x, 126, anchor, names[frame]))
    most, least = max(video.kept_per_frame), min(video.kept_per_frame)
    words = f"Kept tokens per frame: {least} to {most} of {size}, {len(cuts)} cuts"
    return _svg(height, words, parts)


def layers(report: Report, sample: int) -> Markup:
    """What the second stage measured of a sample at each layer, and which layers forgot the video."""
    height, bottom, left, room = 150, 104, 48, 88
    step = (WIDTH - left) / report.layers
    values = [row[sample] if row else None for row in report.measured]
    known = [value for value in values if value is not None]
    low, high = min([*known, 0.0]), max([*known, 1e-9])

    def place(layer: int, value: float) -> tuple[float, float]:
        return left + (layer + 0.5) * step, bottom - room * (value - low) / (high - low)

    parts = [_axis(left, value, place(0, value)[1], f"{value:.2g}") for value in ((low, high) if known else ())]
    points = [place(layer, value) for layer, value in enumerate(values) if value is not None]
    parts.append(
        Markup('<polyline class="curve" points="{}"/>').format(" ".join(f"{x:.1f},{y:.1f}" for x, y in points))
    )
    for layer, row in enumerate(report.forgotten):
        gone, able = bool(row) and row[sample], bool(row)
        state = "forgot" if gone else "holds" if able else "unable"
        words = {"forgot": "forgot the video", "holds": "holds the video", "unable": "cannot forget"}[state]
        value = values[layer] if layer < len(values) else None
        said = f"layer {layer}: {words}" + ("" if value is None else f", {report.quantity} {value:.2f}")
        x = left + (layer + 0.5) * step
        shape = Markup('<rect class="{}" x="{:.1f}" y="112" width="{:.1f}" height="14"/><title>{}</title>').format(
            state, x - step * 0.43, step * 0.86, said
        )
        if value is not None:
            shape += Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(state, *place(layer, value))
        parts.append(_group(shape))
    for layer in sorted({0, report.layers // 2, report.layers - 1}):
        x = left + (layer + 0.5) * step
        parts.append(Markup('<text x="{:.1f}" y="146" text-anchor="middle">{}</text>').format(x, layer))
    lost = [layer for layer, row in enumerate(report.forgotten) if row and row[sample]]
    words = f"{report.layers} layers; the video was forgotten in {len(lost)}: {', '.join(map(str, lost)) or 'none'}"
    return _svg(height, words, parts)


def _svg(height: int, words: str, parts: Sequence[Markup]) -> Markup:
    # a group, not a picture: a picture's links would be out of reach for a screen reader
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="group" aria-label="{}">{}</svg>').format(
        WIDTH, height, words, Markup("").join(parts)
    )


def _axis(left: float, value: float, y: float, label: str) -> Markup:
    return Markup('<path class="axis" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
        left, y, WIDTH, left - 5, y + 4, label
    )


def _group(shape: Markup) -> Markup:
    return Markup("<g>{}</g>").format(shape)


def _link(target: str, shape: Markup) -> Markup:
    return Markup('<a href="#{}">{}</a>').format(target, shape)
