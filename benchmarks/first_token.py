"""Time to first token where only what changed is encoded: one command.

    python benchmarks/first_token.py CLIP [--architecture llava-onevision-0.5b] [--layers N] [--smoke --out DIR]

CLIP is a real clip with fixed and moving shots. Beside it stand two made from it and in code: a crop that slides over
its frames, so that everything moves, and a screen on which a line is typed. Weights are random, so the share to keep is
given; what is encoded depends on pixels alone. Every case goes through ``sharpv.apply`` and ``generate``, planning and
choosing included. Medians of interleaved rounds; ratios are paired by round, the middle half in brackets.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from common import RESULTS, percent, publish, table
from real_size import ARCHITECTURES, SIDE, build, prompt
from timing import Ratio, interleaved, machine
from torch import Tensor
from transformers import LlavaOnevisionVideoProcessor, PreTrainedModel, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor

import sharpv
from sharpv.asking import FirstToken
from sharpv.models import find_family
from sharpv.vision.encoding import plan_videos, split_videos

CASES: dict[str, dict[str, Any]] = {
    "SharpV, kept 12 %": {"retention": 0.12},
    "SharpV, kept 12 %, encode=kept": {"retention": 0.12, "encode": "kept"},
    "SharpV, kept 25 %, encode=kept": {"retention": 0.25, "encode": "kept"},
    "SharpV, kept 12 %, encode=changed": {"retention": 0.12, "encode": "changed"},
}
PROCESSORS = {
    "llava_onevision": LlavaOnevisionVideoProcessor,
    "qwen2_5_vl": Qwen2VLVideoProcessor,
    "qwen3_vl": Qwen3VLVideoProcessor,
}


def clips(path: Path, frames: int, side: int) -> dict[str, np.ndarray]:
    """The clips, ``(T, side, side, 3)`` uint8."""
    read = sharpv.read_video(path, frames=frames).frames
    large = resized(read, 2 * side)
    steps = [frame * side // frames for frame in range(frames)]
    sliding = np.stack([frame[x : x + side, x : x + side] for x, frame in zip(steps, large, strict=True)])
    screen = np.full((frames, side, side, 3), 245, np.uint8)
    random = np.random.default_rng(0)
    lines = random.integers(0, 120, (side // 24, side // 12, 3), dtype=np.uint8)
    for row in range(len(lines) - 1):
        for column in range(lines.shape[1] - 1):
            screen[:, 24 * row + 4 : 24 * row + 16, 12 * column + 2 : 12 * column + 9] = lines[row, column]
    for frame in range(frames):  # a line is typed, a letter a frame
        screen[frame:, side - 20 : side - 8, 12 * frame + 2 : 12 * frame + 9] = 20
    return {"fixed and moving shots": resized(read, side), "everything moves": sliding, "a screen": screen}


def resized(frames: np.ndarray, side: int) -> np.ndarray:
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return small.round().byte().permute(0, 2, 3, 1).numpy()


def inputs_of(model: PreTrainedModel, frames: np.ndarray) -> dict[str, Any]:
    """The prompt of :func:`real_size.prompt` about these frames."""
    kind = model.config.model_type
    pictures = len(frames) if kind == "llava_onevision" else len(frames) // 2
    given = prompt(model, pictures)
    metadata = [{"fps": 2.0, "total_num_frames": len(frames), "frames_indices": list(range(len(frames)))}]
    options: dict[str, Any] = {"do_resize": kind == "llava_onevision"}
    made = PROCESSORS[kind]()([frames], do_sample_frames=False, video_metadata=metadata, return_tensors="pt", **options)
    pixels: Tensor = made["pixel_values_videos"]
    assert pixels.shape == given["pixel_values_videos"].shape, (pixels.shape, given["pixel_values_videos"].shape)
    return {**given, "pixel_values_videos": pixels.to(model.device, model.dtype)}


@dataclass
class Timed:
    """What a case took in each round, and the share of the patches that it encoded."""

    vision: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    encoded: float = 1.0


def main(
    clip: Annotated[Path, typer.Argument(help="A real clip.")],
    architecture: Annotated[str, typer.Option(help=", ".join(ARCHITECTURES))] = "llava-onevision-0.5b",
    layers: Annotated[int | None, typer.Option(help="Only so many layers of tower and language model.")] = None,
    frames: Annotated[int, typer.Option(help="Pictures.")] = 16,
    rounds: Annotated[int, typer.Option(help="Times that each is run.")] = 3,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the model.")] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    out: Annotated[Path, typer.Option(help="Where the page goes.")] = RESULTS,
    smoke: Annotated[bool, typer.Option(help="The smallest size, to see that it runs.")] = False,
) -> None:
    torch.set_num_threads(threads)
    model = build(
        architecture, device, dtype, 1 if smoke else layers, narrow=smoke and architecture.startswith("llava")
    )
    family = find_family(model)
    vision = model.config.vision_config
    side = 384 if architecture.startswith("llava") else SIDE * vision.spatial_merge_size * vision.patch_size
    given = {name: inputs_of(model, pixels) for name, pixels in clips(clip, frames, side).items()}
    timed: dict[str, Timed] = defaultdict(Timed)

    def answer(name: str, inputs: dict[str, Any], options: dict[str, Any] | None) -> None:
        clock, pruning = FirstToken(), None if options is None else sharpv.apply(model, **options)
        with clock.watching(model):
            start = time.perf_counter()
            model.generate(**inputs, max_new_tokens=1, do_sample=False, streamer=clock)
        assert clock.seen is not None and clock.began is not None
        timed[name].vision.append(clock.began - start)
        timed[name].first.append(clock.seen - start)
        if pruning is not None:
            pruning.remove()
            timed[name].encoded = pruning.report.encoded  # type: ignore[union-attr]

    @torch.no_grad()
    def plan(inputs: dict[str, Any]) -> None:
        config = sharpv.Config(retention=0.12, encode="kept")
        assert config.encoding.rule is not None
        plan_videos(model, family, config.encoding.rule, config.budget, split_videos(model, family, inputs))

    first_clip = next(iter(given))
    cases: dict[str, Any] = {"dense": lambda: answer("dense", given[first_clip], None)}
    cases["planning"] = lambda: plan(given[first_clip])
    for name, options in CASES.items():
        for about, inputs in given.items():
            if "encode" in options or about == first_clip:
                key = f"{about}: {name}"
                cases[key] = lambda key=key, inputs=inputs, options=options: answer(key, inputs, options)
    seconds = interleaved(cases, rounds, device)

    dense = np.array(timed["dense"].first[1:]), np.array(timed["dense"].vision[1:])
    medians = [f"{np.median(part):.2f}" for part in (dense[1], dense[0] - dense[1], dense[0])]
    lines: list[list[str]] = [["dense", "", *medians, "", ""]]
    facts: list[dict[str, Any]] = []
    for key in (key for key in cases if key in timed and key != "dense"):
        own = timed[key]
        first, tower = np.array(own.first[1:]), np.array(own.vision[1:])
        faster, share = Ratio.of(dense[0], first), Ratio.of(tower, dense[1])
        medians = [f"{np.median(part):.2f}" for part in (tower, first - tower, first)]
        lines.append([key, percent(own.encoded), *medians, str(share), str(faster)])
        seconds_of = {"vision": tower.tolist(), "first_token": first.tolist()}
        ratios = {"vision_of_dense": vars(share), "times_as_fast": vars(faster)}
        facts.append({"case": key, "encoded": own.encoded, **seconds_of, **ratios})
    planning = float(np.median(seconds["planning"]))
    cut = f", cut to {layers} layers of tower and language model" if layers else ""
    asked = f"--architecture {architecture}{f' --layers {layers}' if layers else ''} --rounds {rounds}"
    asked += f" --dtype {dtype}" if dtype != "float32" else ""
    words = (
        f"Random weights{cut}, {dtype}, {machine(device, threads)}. {frames} pictures of {clip.name} and of two clips "
        f"made from it and in code, {given[first_clip]['input_ids'].shape[1]:,} prompt tokens. Vision is the tower, "
        f"planning and choosing; prefill what follows up to the first token. Medians of {rounds} interleaved rounds, "
        f"ratios paired by round, the middle half in brackets. Planning alone: {1000 * planning:.0f} ms, "
        f"{percent(planning / float(np.median(dense[1])), 2)} of the dense tower. Written by "
        f"`python benchmarks/first_token.py CLIP {asked}`."
    )
    head = [
        "",
        "patches encoded",
        "vision, s",
        "prefill, s",
        "TTFT, s",
        "vision, of dense",
        "TTFT, times as fast as dense",
    ]
    page = [f"# Time to first token: {architecture}", "", words, "", *table(head, lines)]
    about = {"architecture": architecture, "layers": layers, "frames": frames, "planning": planning}
    about |= {"dense": {"vision": dense[1].tolist(), "first_token": dense[0].tolist()}, "rows": facts}
    publish(out, f"first_token_{architecture}", page, about)


if __name__ == "__main__":
    typer.run(main)
