"""Serving with vLLM on this CPU: requests a second.

    python benchmarks/serving_speed.py [--rounds 5]

It runs in vLLM's environment (``make test-vllm`` builds it), with PYTHONPATH=tests/integrations/vllm/site where that is
vLLM's CPU package. The page goes to docs/results.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import RESULTS, percent, publish
from serving import BUDGET, COMMON, question, versions
from timing import Ratio

from sharpv import Config, read_video
from sharpv.integrations.vllm.options import Options
from sharpv.integrations.vllm.selection import count, encoded, shown_patches

app = typer.Typer(add_completion=False)

SIDE, CELL = 112, 16
"""Pixels of a frame's side, and of a token's."""
SAMPLED = 2
"""Frames a second at which Qwen's processor samples: what clips are written at, so that it sees every frame."""
SMALL = ("--num-gpu-blocks-override", "64")
"""Room for 8192 tokens, where five servers share a machine."""
MODES: dict[str, tuple[str, ...]] = {
    "dense": (),
    "evs": (
        "--video-pruning-method", "evs", "--video-pruning-rate", "0.75",
        "--worker-cls", "sharpv.integrations.vllm.cpu.Worker",
    ),
    "sharpv": BUDGET,
    "changed": (*BUDGET, "--hf-overrides", '{"sharpv": {"encode": "changed"}}'),
    "kept": (*BUDGET, "--hf-overrides", '{"sharpv": {"encode": "kept"}}'),
}  # fmt: skip
"""vLLM's own evs needs this plugin's mend for CPUs, without which no pruning runs there."""


@app.command()
def throughput(
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 5,
    requests: Annotated[int, typer.Option(help="Requests a client, content and round.")] = 2,
    frames: Annotated[int, typer.Option(help="Frames a clip.")] = 16,
) -> None:
    """Requests a second of a random Qwen2.5-VL at 1 and 8 clients, by how much of a clip changes.

    Dense, vLLM's evs, sharpv, and sharpv that encodes what changed, or of that what can be kept.
    """
    import openai
    import small
    from server import serve

    contents, levels = (0.1, 0.25, 0.5), (8, 1)
    cases = [(share, level) for level in levels for share in contents]
    seconds: dict[tuple[str, float, int], list[float]] = {(mode, *case): [] for mode in MODES for case in cases}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        checkpoint = small.write_medium(Path(folder) / "model")
        clients = {
            mode: openai.OpenAI(
                base_url=servers.enter_context(serve(checkpoint, "--dtype", "float32", *COMMON, *SMALL, *options)),
                api_key="none", timeout=600,
            )
            for mode, options in MODES.items()
        }  # fmt: skip
        made = {share: clips(Path(folder), frames, share) for share in contents}
        parts = {
            f"{mode}, {share}": part
            for share in contents
            for mode, part in planned(made[share], Path(folder) / f"{share}.mp4", checkpoint)
        }
        lengths = {mode: prompt_tokens(client, next(made[0.1])) for mode, client in clients.items()}
        tokens = frames // 2 * (SIDE // CELL) ** 2
        for mode, length in lengths.items():
            if length != lengths["dense"] - (0 if mode == "dense" else tokens - round(tokens / 4)):
                raise RuntimeError(f"{mode} sees another video than it was sent: {length} prompt tokens of {lengths}")
        for round_ in range(rounds + 1):
            for share, level in cases:
                urls = [next(made[share]) for _ in range(requests * max(level, 2))]
                for mode in np.random.default_rng(round_).permutation(list(MODES)):
                    took = timed(clients[mode], urls, level) / len(urls)
                    if round_:
                        seconds[mode, share, level].append(took)
                    print(round_, share, level, mode, f"{1 / took:.2f} requests/s", flush=True)
    lines = [
        "# Requests a second in vLLM, on a CPU",
        "",
        f"`vllm serve` ({versions()}) of a Qwen2.5-VL with random weights (12 layers of width 768, a tower of 4 layers "
        "of width 384: in the proportion of the 7B's; float32), 8 tokens of answer. H.264 clips of "
        f"{frames} frames of {SIDE} x {SIDE} at {SAMPLED} frames a second, all of which the server sees "
        f"({lengths['dense']} prompt tokens dense, {lengths['sharpv']} pruned), no clip twice: a still of coloured "
        "blocks, of which so many tokens' places are drawn anew every second. Five servers side by side on 2 cores, "
        f"{rounds} interleaved rounds of {requests * 8} requests at 8 clients and {requests * 2} at one. Requests a "
        "second of dense (median), and as multiples of dense in the same round (median, middle half of the rounds). "
        "All but dense keep 25 % of the video's tokens; evs runs with this plugin's mend for CPUs, without which it "
        "does not. `changed` and `kept` are sharpv with that `encode`; in brackets, the share of the tower's patches "
        "that is encoded. Written by `python benchmarks/serving_speed.py`.",
        "",
        "| clients | changes | dense | evs | sharpv | + changed | + kept |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for share, level in cases:
        of = {mode: np.array(seconds[mode, share, level]) for mode in MODES}
        cells = [
            f"{Ratio.of(of['dense'], of[mode])}"
            + (f" ({percent(parts[f'{mode}, {share}'])})" if f"{mode}, {share}" in parts else "")
            for mode in ("evs", "sharpv", "changed", "kept")
        ]
        rate = 1 / float(np.median(of["dense"]))
        lines.append(f"| {level} | {percent(share)} | {rate:.2f} | {' | '.join(cells)} |")
    kept = {f"{mode}, {share}, {level}": value for (mode, share, level), value in seconds.items()}
    facts = {"rounds": rounds, "requests": requests, "frames": frames, "prompt_tokens": lengths, "encoded": parts}
    publish(RESULTS, "serving_throughput", lines, {**facts, "seconds_a_request": kept})


def clips(folder: Path, frames: int, share: float) -> Iterator[str]:
    """Data URLs of ever new clips: of the tokens' places this share is drawn anew every second."""
    import av
    from server import data_url

    rng, cells = np.random.default_rng([7, round(100 * share)]), (SIDE // CELL) ** 2
    path = folder / f"{share}.mp4"
    while True:
        shown = rng.integers(0, 256, (cells, 2, 2, 3))
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=SAMPLED, options={"crf": "18", "preset": "fast"})
            stream.height, stream.width, stream.pix_fmt = SIDE, SIDE, "yuv420p"
            for frame in range(frames):
                if frame and frame % 2 == 0:  # Qwen's tower takes two frames at a time
                    anew = rng.permutation(cells)[: round(share * cells)]
                    shown[anew] = rng.integers(0, 256, (len(anew), 2, 2, 3))
                grid = shown.reshape(SIDE // CELL, SIDE // CELL, 2, 2, 3).transpose(0, 2, 1, 3, 4)
                blocks = grid.reshape(SIDE * 2 // CELL, SIDE * 2 // CELL, 3).astype(np.uint8)
                pixels = blocks.repeat(CELL // 2, axis=0).repeat(CELL // 2, axis=1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        yield data_url(path)


def planned(made: Iterator[str], path: Path, checkpoint: Path, videos: int = 8) -> Iterator[tuple[str, float]]:
    """Of some clips, the share of places that each way encodes, as the server's processor finds it."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint).video_processor
    shown = []
    for _ in range(videos):
        next(made)  # written to the path
        frames = read_video(path).frames
        inputs = processor(videos=[frames], do_sample_frames=False, return_tensors="pt")
        grid = inputs["video_grid_thw"][0].tolist()
        shown.append(shown_patches(inputs["pixel_values_videos"], grid, processor.merge_size))
    for mode in ("changed", "kept"):
        options = Options(Config(retention=0.25, encode=mode))
        parts = [encoded(each, options, count(each, options)) for each in shown]
        yield mode, float(np.mean([part.float().mean() for part in parts if part is not None]))


def prompt_tokens(client: Any, url: str) -> int:
    """As the server counts them."""
    used: int = question(client, url, "What happens?", 1).usage.prompt_tokens
    return used


def timed(client: Any, urls: list[str], level: int) -> float:
    """Seconds for all requests, ``level`` at a time."""
    started = time.perf_counter()
    with ThreadPoolExecutor(level) as pool:
        list(pool.map(lambda url: question(client, url, "What happens?", 8), urls))
    return time.perf_counter() - started


if __name__ == "__main__":
    app()
