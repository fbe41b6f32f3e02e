"""Peak memory of a long video: dense, pruned, and pruned with the vision tower in pieces.

    python benchmarks/long_video.py [--frames 64,256,1024] [--layers 1]

Each case is a process of its own, which is asked for one token; what counts is the peak above what it held before, that
is beyond weights and pixels. Memory hardly depends on how many layers a model has, so the architecture is cut to a few,
which makes 1,024 frames a matter of minutes. Linux. Writes docs/results/long_video.{md,json}.
"""

from __future__ import annotations

import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from real_size import build, prompt
from timing import machine, publish

import sharpv

RETENTION, PIECE = 0.06, 16
CASES: dict[str, dict[str, Any] | None] = {
    "dense": None,
    f"kept {100 * RETENTION:g} %": {"retention": RETENTION},
    f"kept {100 * RETENTION:g} %, {PIECE} frames in the tower at a time": {
        "retention": RETENTION,
        "frames_at_once": PIECE,
    },
}


def memory(name: str) -> int:
    """Bytes: VmRSS is what this process holds, VmHWM the most that it held."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


@torch.no_grad()
def peak(case: str, frames: int, architecture: str, layers: int, dtype: str, threads: int) -> int:
    """Bytes of one case, in this process."""
    torch.set_num_threads(threads)
    model = build(architecture, "cpu", dtype, layers)
    inputs, options = prompt(model, frames), CASES[case]
    if options is not None:
        sharpv.apply(model, memory=None, **options)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = memory("VmRSS")
    model.generate(**inputs, max_new_tokens=1, do_sample=False)
    return memory("VmHWM") - before


def main(
    frames: Annotated[str, typer.Option(help="Numbers of frames, with commas.")] = "64,256,1024",
    limit: Annotated[int, typer.Option(help="Above so many frames only the tower in pieces is run.")] = 64,
    architecture: Annotated[str, typer.Option(help="Of benchmarks/architectures.")] = "llava-onevision-0.5b",
    layers: Annotated[int, typer.Option(help="Layers of tower and language model.")] = 1,
    dtype: Annotated[str, typer.Option(help="Of the model.")] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    counts = [int(count) for count in frames.split(",")]
    rows: dict[str, dict[int, int]] = {case: {} for case in CASES}
    for case, options in CASES.items():
        for count in counts:
            if count <= limit or "frames_at_once" in (options or {}):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                    asked = alone.submit(peak, case, count, architecture, layers, dtype, threads)
                    rows[case][count] = asked.result()
    lines = [
        "# Memory of a long video",
        "",
        f"{architecture} cut to {layers} layer(s) of tower and language model, random weights, {dtype}, "
        f"{machine('cpu', threads)}. Peak resident memory above what the process held before the call, that is beyond "
        "weights and pixels; prefill and one token, second stage off; each case in a process of its own. Written by "
        "`python benchmarks/long_video.py`.",
        "",
        f"| | {' | '.join(f'{count:,} frames' for count in counts)} |",
        f"| --- |{' --- |' * len(counts)}",
    ]
    for case, own in rows.items():
        cells = [f"{own[count] / 2**30:.2f} GiB" if count in own else "not run" for count in counts]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    publish("long_video", lines, {"architecture": architecture, "layers": layers, "dtype": dtype, "bytes": rows})


if __name__ == "__main__":
    typer.run(main)
