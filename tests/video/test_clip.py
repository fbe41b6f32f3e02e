"""Clips are generated here: small, with a colour that tells each frame's number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec import codecs_available
from av.stream import Disposition
from PIL import Image, ImageOps
from transformers.video_utils import VideoMetadata

from sharpv.video import Clip, VideoError, decoding, read_video
from sharpv.video.clip import CLOCK_SLACK, _choose
from sharpv.video.decoding import Timetable

WIDTH, HEIGHT, RATE, STEP = 64, 48, 10, 8
MILLISECOND = Fraction(1, 1000)


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Grey ``8 * number`` with a red top left quarter."""
    image = np.full((height, width, 3), number * STEP % 256, np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    return image


def write(
    path: Path,
    count: int = 30,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    *,
    times: Sequence[int] | None = None,
    rotation: int | None = None,
    group: int = 12,
    options: dict[str, str] | None = None,
    container: str | None = None,
    **settings: Any,
) -> Path:
    """Encode a clip at 10 frames a second, or with frames at ``times`` in milliseconds."""
    if codec not in codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    quick = {
        "libx264": {"preset": "ultrafast", "qp": "4"},
        "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    }
    with av.open(str(path), "w", format=container, options=options or {}) as out:
        stream = out.add_stream(codec, rate=RATE, options={**quick.get(codec, {}), "g": str(group)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        if times:
            stream.codec_context.time_base = MILLISECOND
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        if rotation is not None:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write a display matrix")
            stream.set_display_rotation(rotation)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number), "rgb24")
            frame.pts, frame.time_base = (times[number], MILLISECOND) if times else (number, Fraction(1, RATE))
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def numbers(clip: Clip) -> list[int]:
    """Which frames of the source these are, by their grey; for fewer than 32 frames."""
    return np.rint(clip.frames[:, -8:, -8:].mean((1, 2, 3)) / STEP).astype(int).tolist()


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clips") / "clip.mp4")


def test_all_frames(clip_path: Path) -> None:
    clip = read_video(clip_path)
    assert clip.frames.shape == (30, HEIGHT, WIDTH, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.timestamps.dtype == np.float64
    assert numbers(clip) == list(range(30))
    np.testing.assert_allclose(clip.timestamps, np.arange(30) / RATE)
    assert (clip.fps, clip.duration, clip.source) == (RATE, pytest.approx(3.0), clip_path)
    assert "array" not in repr(clip)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 29, 30])
def test_frames_are_transformers_default(clip_path: Path, count: int) -> None:
    clip = read_video(str(clip_path), frames=count)
    expected = [number * 30 // count for number in range(count)]
    assert numbers(clip) == expected
    np.testing.assert_allclose(clip.timestamps, np.array(expected) / RATE)


@pytest.mark.parametrize("rate", [10, 12.5, 24, 24000 / 1001, 25, 30, 30000 / 1001, 50, 60, 60000 / 1001, 120])
@pytest.mark.parametrize("tick", [1 / 90000, 0.001], ids=["exact clock", "milliseconds"])
@pytest.mark.parametrize("total", [1, 7, 125, 325, 390, 1001])
def test_the_frames_of_a_constant_rate_are_exact(rate: float, tick: float, total: int) -> None:
    """Whatever the container's clock rounds: frame i * total // n, and for fps the frame shown at k / fps."""
    table = Timetable(np.rint(np.arange(total) / rate / tick) * tick, total / rate, rate)
    for count in (1, 2, 8, 31, 32, 64, 100, total):
        if count <= total:
            assert _choose(table, count, None).tolist() == [i * total // count for i in range(count)]
    for fps in (0.5, 1, 2, 5):
        shown = [int(Fraction(rate).limit_denominator(1001) * k / Fraction(fps)) for k in range(total + 1)]
        assert _choose(table, None, fps).tolist() == sorted({frame for frame in shown if frame < total})


def test_at_a_variable_rate_the_frame_shown_at_the_moment_is_taken() -> None:
    """Each moment's frame by the file's clock, and by no more than 2 ms a later one."""
    times = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.09, 300)) - 0.01
    table = Timetable(times - times[0], float(times[-1] - times[0]) + 0.05, 20.0)
    for count in (8, 32, 64):
        moments = np.arange(count) * table.duration / count
        shown = np.searchsorted(table.times, moments, side="right") - 1
        later = np.searchsorted(table.times, moments + CLOCK_SLACK, side="right") - 1
        picks = _choose(table, count, None)
        assert ((picks == shown) | (picks == later)).all() and (np.diff(picks) > 0).all()


def test_a_short_clip_gives_what_it_has(clip_path: Path) -> None:
    assert numbers(read_video(clip_path, frames=64)) == list(range(30))


@pytest.mark.parametrize(
    ("fps", "expected"), [(1, [0, 10, 20]), (2.5, [0, 4, 8, 12, 16, 20, 24, 28]), (0.1, [0]), (1e9, list(range(30)))]
)
def test_fps_samples_by_time(clip_path: Path, fps: float, expected: list[int]) -> None:
    assert numbers(read_video(clip_path, fps=fps)) == expected


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("clip.mkv", "libx264", "yuv420p"),
        ("ten.mp4", "libx264", "yuv420p10le"),
        ("clip.mp4", "libx265", "yuv420p"),
        ("ten.mkv", "libx265", "yuv420p10le"),
        ("clip.webm", "libvpx-vp9", "yuv420p"),
        ("clip.mkv", "libsvtav1", "yuv420p"),
        ("clip.ts", "libx264", "yuv420p"),
        ("clip.avi", "mpeg4", "yuv420p"),
        ("clip.avi", "libx264", "yuv420p"),  # B-frames in AVI: the packets' times are one off
        ("clip.flv", "libx264", "yuv420p"),
        ("clip.gif", "gif", "rgb8"),
        ("clip.h264", "libx264", "yuv420p"),  # no container: no times, no frame count
        ("clip.mjpeg", "mjpeg", "yuvj420p"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_codecs_and_containers(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    path = write(tmp_path / name, codec=codec, pixels=pixels)
    clip = read_video(path, frames=6)
    assert clip.frames.shape == (6, HEIGHT, WIDTH, 3)
    expected = [0, 5, 10, 15, 20, 25]
    assert numbers(clip) == pytest.approx(expected, abs=1 if codec in ("gif", "libsvtav1", "libvpx-vp9") else 0)
    if name != "clip.mjpeg":  # a bare stream of pictures has no rate
        np.testing.assert_allclose(clip.timestamps, np.array(expected) / RATE, atol=1e-3)
        assert (clip.fps, clip.duration) == (RATE, pytest.approx(3.0))


def test_a_still_picture_is_one_frame(tmp_path: Path) -> None:
    clip = read_video(write(tmp_path / "still%03d.png", 1, "png", "rgb24", container="image2pipe"), frames=8)
    assert clip.frames.shape == (1, HEIGHT, WIDTH, 3)
    assert clip.timestamps.tolist() == [0.0]
    assert clip.metadata()["frames_indices"] == [0]


@pytest.mark.parametrize("name", ["vfr.mkv", "vfr.mp4"])
def test_variable_rate_samples_by_time(tmp_path: Path, name: str) -> None:
    # dense at first, then a still for four seconds
    path = write(tmp_path / name, 8, times=[0, 100, 200, 300, 400, 500, 4500, 4900], group=8)
    assert numbers(read_video(path, fps=2)) == [0, 5, 6]  # moments 0, 0.5, 1, ..., 4.5
    by_count = read_video(path, frames=4)  # moments 0, 1.25, 2.5, 3.75: the held frame comes once, its followers next
    assert numbers(by_count) == [0, 5, 6, 7]
    np.testing.assert_allclose(by_count.timestamps, [0, 0.5, 4.5, 4.9])
    assert by_count.duration == pytest.approx(5.0)
    assert by_count.fps == pytest.approx(8 / 5)


@pytest.mark.parametrize("times", [None, [0, 100, 250, 300, 480, 500, 4500, 4900]])
def test_metadata_tells_transformers_the_times(tmp_path: Path, times: list[int] | None) -> None:
    clip = read_video(write(tmp_path / "clip.mkv", 8, times=times), frames=4)
    metadata = VideoMetadata(**clip.metadata())
    np.testing.assert_allclose(metadata.timestamps, clip.timestamps, atol=1e-9)  # what Qwen3-VL prints
    assert metadata.sampled_fps == pytest.approx(4 / clip.duration)  # what Qwen2.5-VL scales time with
    assert (metadata.height, metadata.width) == (HEIGHT, WIDTH)
    if times is None:
        assert metadata.frames_indices == [0, 2, 4, 6]
        assert (metadata.fps, metadata.total_num_frames) == (RATE, 8)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_rotation_is_applied(tmp_path: Path, turn: int) -> None:
    plain = read_video(write(tmp_path / "plain.mp4", 2)).frames
    turned = read_video(write(tmp_path / "turned.mp4", 2, rotation=turn)).frames
    np.testing.assert_array_equal(turned, np.rot90(plain, turn // 90, axes=(1, 2)))  # counterclockwise


def test_colours_follow_the_stream(tmp_path: Path) -> None:
    # encoded with the matrix of BT.601 whatever the label says: a BT.709 label must change what comes out
    plain = read_video(write(tmp_path / "601.mp4", 1, colorspace=5, color_range=1)).frames[0, 4, 4]
    labelled = read_video(write(tmp_path / "709.mp4", 1, colorspace=1, color_range=1)).frames[0, 4, 4]
    np.testing.assert_allclose(plain, [255, 0, 0], atol=6)
    assert labelled[1] > 12


def test_max_pixels_scales_down_only(clip_path: Path) -> None:
    small = read_video(clip_path, frames=2, max_pixels=800)
    assert small.frames.shape == (2, 24, 32, 3)
    assert numbers(small) == [0, 15]
    assert read_video(clip_path, frames=2, max_pixels=10**9).frames.shape == (2, HEIGHT, WIDTH, 3)


def test_sparse_frames_decode_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "long.mp4", 300, group=20)
    decoded = 0
    original = decoding._frames

    def counted(*arguments: Any) -> Any:
        nonlocal decoded
        for frame in original(*arguments):
            decoded += 1
            yield frame

    everything = read_video(path)
    monkeypatch.setattr(decoding, "_frames", counted)
    clip = read_video(path, frames=4)
    assert decoded < 100
    np.testing.assert_array_equal(clip.frames, everything.frames[[0, 75, 150, 225]])


def test_the_default_of_several_streams(tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=RATE) for _ in range(2)]
        sound = out.add_stream("aac", rate=16000)
        streams[1].disposition = Disposition.default
        for stream, size in zip(streams, (1, 2), strict=True):
            stream.width, stream.height, stream.pix_fmt = WIDTH * size, HEIGHT * size, "yuv420p"
        for number in range(5):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture(number, stream.width, stream.height), "rgb24")
                frame.pts = number
                out.mux(stream.encode(frame))
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        tone.rate = 16000
        for stream in (*streams, sound):
            out.mux(stream.encode(tone) if stream is sound else stream.encode(None))
        out.mux(sound.encode(None))
    assert read_video(path).frames.shape == (5, 2 * HEIGHT, 2 * WIDTH, 3)


def silence(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le" if path.suffix == ".wav" else "aac", rate=16000, layout="mono")
        dtype, kind = (np.int16, "s16") if path.suffix == ".wav" else (np.float32, "fltp")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype), kind, "mono")
        frame.rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["sound.wav", "sound.mp4"])
def test_sound_alone_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(VideoError, match=rf"{name}.*no video stream, only audio"):
        read_video(silence(tmp_path / name))


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4", "notes"])
def test_text_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("not a video\n" * 50)
    with pytest.raises(VideoError, match=rf"{name}.*(not a video|no video stream)"):
        read_video(path)


def test_paths_that_are_no_clips(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        read_video(tmp_path / "missing.mp4")
    with pytest.raises(VideoError, match="it is a directory"):
        read_video(tmp_path)
    with pytest.raises(VideoError, match="cannot be opened"):
        read_video(tmp_path / ("long" * 100))
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match="not a video"):
        read_video(tmp_path / "empty.mp4")


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("end.mp4", {}, "its index is missing"),  # the index (moov) is at the end
        ("start.mp4", {"movflags": "faststart"}, r"cut off or damaged after \d+ frames, at"),
        ("clip.mkv", {}, r"cut off or damaged after \d+ frames, at"),
    ],
)
def test_a_cut_off_file_is_refused(tmp_path: Path, name: str, options: dict[str, str], reason: str) -> None:
    path = write(tmp_path / name, 60, options=options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(VideoError, match=reason):
        read_video(path, frames=2)


def test_damage_inside_is_refused_where_it_is_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", 60, group=30)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for place, size in places[40:45]:
        data[place : place + size] = bytes(0xFF for _ in range(size))
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"decoding failed after \d+ frames"):
        read_video(path)
    assert len(read_video(path, frames=2).frames) == 2  # key frames 0 and 30: the damage is not touched


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"frames": 4, "fps": 1}, "both given"),
        ({"frames": 0}, "frames must be a whole number of at least 1, got 0"),
        ({"frames": 2.5}, "frames must be"),
        ({"fps": 0}, "fps must be a finite number above 0, got 0"),
        ({"fps": -1}, "fps must be"),
        ({"fps": float("nan")}, "fps must be"),
        ({"fps": float("inf")}, "fps must be"),
        ({"max_pixels": 0}, "max_pixels must be"),
        ({"max_frames": 29}, "30 frames are more than max_frames=29, ask for fewer"),
        ({"frames": 9, "max_frames": 8}, "9 frames are more than max_frames=8"),
        ({"fps": 5, "max_frames": 8}, "15 frames are more than max_frames=8"),
    ],
)
def test_requests_that_are_refused(clip_path: Path, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(VideoError, match=reason) as caught:
        read_video(clip_path, **arguments)
    assert str(clip_path) in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_memory_has_a_limit(clip_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_BYTES", 2 * WIDTH * HEIGHT * 3)
    assert len(read_video(clip_path, frames=2).frames) == 2
    with pytest.raises(VideoError, match="3 frames of 64 x 48 pixels take"):
        read_video(clip_path, frames=3)
    assert len(read_video(clip_path, frames=3, max_pixels=WIDTH * HEIGHT // 4).frames) == 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_pictures_of_phones_stand_upright(tmp_path: Path, orientation: int, ending: str) -> None:
    """EXIF brings side data that PyAV does not know, beside the display matrix, mirrored ones too."""
    image, facts = Image.fromarray(picture(3)), Image.Exif()
    facts[0x010F], facts[0x0112] = "Phone", orientation
    path = tmp_path / f"picture.{ending}"
    image.save(path, exif=facts, quality=95)
    with Image.open(path) as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"), np.int16)
    (read,) = read_video(path).frames
    if ending != "jpg" and not _knows_exif(path):  # older FFmpeg reads EXIF in JPEG alone
        upright = np.asarray(image, np.int16)
    assert read.shape == upright.shape and np.abs(read - upright).mean() < 8


def _knows_exif(path: Path) -> bool:
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        try:
            return "DISPLAYMATRIX" in {kind.type.name for kind in frame.side_data}
        except ValueError:
            return True


def test_motion_jpeg_with_exif(tmp_path: Path) -> None:
    facts = Image.Exif()
    facts[0x0112] = 6
    Image.fromarray(picture(3)).save(tmp_path / "picture.jpg", exif=facts, quality=95)
    with av.open(str(tmp_path / "clip.mkv"), "w") as out:
        stream = out.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        for number in range(4):
            packet = av.Packet((tmp_path / "picture.jpg").read_bytes())
            packet.stream, packet.pts, packet.dts = stream, number * 200, number * 200
            packet.time_base, packet.is_keyframe = MILLISECOND, True
            out.mux(packet)
    assert read_video(tmp_path / "clip.mkv").frames.shape == (4, WIDTH, HEIGHT, 3)
