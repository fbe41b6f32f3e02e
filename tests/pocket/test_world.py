"""The world is a function of its seed, and its pixels show what its labels say."""

from __future__ import annotations

import numpy as np
import pytest

from sharpv.pocket.drawing import COLOURS, SIZE, textures
from sharpv.pocket.world import DIRECTION_NAMES, DIRECTIONS, Episode, frame_times, render, sample, write_clip
from training.pocket.labels import CELLS, IGNORE, STILL, crowded_frame, motion_labels

PALETTE = np.array(list(COLOURS.values()), float)


def episodes(count: int, seed: int = 0) -> list[Episode]:
    return [sample(np.random.default_rng([seed, index])) for index in range(count)]


def test_the_same_seed_gives_the_same_video() -> None:
    first, second = episodes(3), episodes(3)
    assert first == second
    assert all((render(a, 5) == render(b, 5)).all() for a, b in zip(first, second, strict=True))
    assert not (render(first[0], 5) == render(first[1], 5)).all()


@pytest.mark.parametrize("frames", [4, 8, 32])
def test_frames_have_the_promised_shape(frames: int) -> None:
    video = render(episodes(1)[0], frames)
    assert video.shape == (frames, SIZE, SIZE, 3)
    assert video.dtype == np.uint8


def test_pixels_show_the_colour_of_the_object() -> None:
    checked = right = 0
    for episode in episodes(40):
        video, times = render(episode, 8), frame_times(8)
        for item in episode.items:
            if item.shape == "ring":  # hollow: its centre shows the background
                continue
            names = item.colours(times)
            for frame in np.flatnonzero(item.visible(times)):
                x, y = episode.screen_position(item, times)[frame].astype(int)
                pixel = video[frame, y - 1 : y + 2, x - 1 : x + 2].mean((0, 1))
                nearest = list(COLOURS)[np.abs(PALETTE - pixel).sum(1).argmin()]
                checked += 1
                right += nearest == names[frame]
    assert checked > 500
    assert right / checked > 0.99


def test_an_object_that_is_not_visible_is_not_drawn() -> None:
    for episode in episodes(60):
        blinking = [item for item in episode.items if item.blinks and item.shape != "ring"]
        times = frame_times(8)
        for item in blinking:
            video, seen = render(episode, 8, noise=0.0), item.visible(times)
            x, y = (int(value) for value in item.start)
            shown, hidden = video[seen, y, x].astype(int), video[~seen, y, x].astype(int)
            assert np.ptp(hidden, axis=0).max() <= 1
            assert np.abs(shown.mean(0) - hidden.mean(0)).sum() > 30


def test_objects_stay_on_screen_and_apart() -> None:
    times = frame_times(16)
    for episode in episodes(60):
        places = [episode.screen_position(item, times) for item in episode.items]
        assert all((place > 4).all() and (place < SIZE - 4).all() for place in places)
        for index, place in enumerate(places):
            for other in places[:index]:
                assert np.hypot(*(place - other).T).min() > 12


def test_velocity_labels_are_the_direction_of_the_movers() -> None:
    seen = set()
    for episode in episodes(60):
        labels = motion_labels(episode, 8)
        said = set(labels.velocity[labels.velocity != IGNORE].tolist()) - {STILL}
        movers = [item.direction for item in episode.items if item.role == "mover"]
        if episode.pan is not None:
            opposite = tuple(-value for value in DIRECTIONS[episode.pan])
            movers.append(next(name for name, step in DIRECTIONS.items() if step == opposite))
        assert said <= {DIRECTION_NAMES.index(name) for name in movers if name}
        seen |= said
    assert len(seen) == 4


def test_crowded_frames_are_labelled_per_cell() -> None:
    frame = crowded_frame(np.random.default_rng(0), 0)
    assert frame.pixels.shape == (SIZE, SIZE, 3)
    assert frame.colour.shape == (CELLS,)
    assert ((frame.colour == 8) == (frame.shape == 7)).all()
    assert 3 <= (frame.colour != 8).sum() < CELLS


def test_texture_banks_differ() -> None:
    assert not np.array_equal(textures(0)["striped"][0].pattern, textures(1)["striped"][0].pattern)


def test_a_written_clip_decodes_to_the_rendered_video(tmp_path) -> None:  # type: ignore[no-untyped-def]
    av = pytest.importorskip("av")
    episode = episodes(1)[0]
    write_clip(episode, tmp_path / "clip.mp4", fps=8, seconds=1, scale=3, noise=0.0)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    decoded = np.stack(frames).reshape(8, SIZE, 3, SIZE, 3, 3).mean((2, 4))
    assert np.abs(decoded - render(episode, 8, noise=0.0)).mean() < 6
