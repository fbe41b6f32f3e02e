"""Where the time goes: from a clip to the last token of an answer, dense and pruned, side by side in one run.

    python benchmarks/latency.py [--architecture llava-onevision-0.5b] [--frames 8] [--device cuda --dtype bfloat16]

Real architectures, random weights: these know no redundancy, so the share to keep is given. Each phase is timed on its
own, in interleaved rounds; what comes after the tower runs with the tower's answer at hand. Time to first token (TTFT)
is the sum of both. Writes docs/results/latency_ARCHITECTURE.{md,json}.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import transformers
import typer
from numpy.typing import NDArray
from real_size import ARCHITECTURES, EveryOther, build, prefill_flops, prompt, without_tower
from timing import Ratio, interleaved, machine, matrix_product, publish
from torch import Tensor
from transformers import LlavaOnevisionVideoProcessor, PreTrainedModel, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor

import sharpv
from sharpv import video
from sharpv.asking import FirstToken
from sharpv.budget import Budget
from sharpv.methods import get_method
from sharpv.models import find_family
from sharpv.vision import Encoding, encode_videos

PROCESSORS = {
    "llava_onevision": LlavaOnevisionVideoProcessor,
    "qwen2_5_vl": Qwen2VLVideoProcessor,
    "qwen3_vl": Qwen3VLVideoProcessor,
}
SAMPLE = Path(str(files("sharpv.pocket") / "clips" / "mover.mp4"))
DENSE, STILL = "dense", "SharpV, stage 0 on a still clip"
PRUNED: dict[str, dict[str, Any]] = {
    "SharpV": {},
    "SharpV, every other layer forgets": {"memory": EveryOther()},
    "SharpV, nothing pruned or forgotten": {"retention": 1.0, "memory": -1.0},
    "EVS": {"method": "evs"},
    "VidCom2": {"method": "vidcom2"},
    "control: random": {"method": "random"},
}
COLUMNS = {"tower": "tower", "choosing": "choosing", "pruning": "choosing and trimming",
           "first": "prefill and first token, pruning included", "ttft": "TTFT", "token": "per token"}  # fmt: skip


@dataclass
class Run:
    """One model and one prompt; its methods are what is timed.

    Attributes:
        first: per row, seconds from the features to the first token, one per round, the warming one included.
        token: seconds for each token after it.
        kv: bytes of the KV cache.
        peak: bytes on the device.
    """

    model: PreTrainedModel
    inputs: dict[str, Any]
    retention: float
    tokens: int
    first: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    token: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    kv: dict[str, int] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.family = find_family(self.model)
        self.encoded = self.tower()
        self.layout = self.family.layouts(self.model, self.inputs, None)[0]
        self.features = self.layout.split(self.encoded.pooler_output[0])
        self.still = {**self.inputs, "pixel_values_videos": self._one_picture()}

    def _one_picture(self) -> Tensor:
        pixels: Tensor = self.inputs["pixel_values_videos"]
        if self.family.frames_as == "pictures":
            return pixels[:, :1].expand_as(pixels).contiguous()
        return pixels[: len(pixels) // self.layout.frames].repeat(self.layout.frames, 1)

    @torch.no_grad()
    def tower(self) -> Any:
        return self.family.encode(self.model, "video", self.inputs)

    @torch.no_grad()
    def tower_once(self) -> Any:
        return encode_videos(self.model, self.family, Encoding(still=0.0), self.still)

    def choose(self, method: str) -> None:
        get_method(method).choose(self.features, Budget(self.retention))

    @torch.no_grad()
    def prune(self, method: str) -> None:
        with without_tower(self.model, self.encoded):
            sharpv.trim(self.model, self.inputs, method, retention=self.retention)

    def answer(self, name: str) -> None:
        """Everything after the tower."""
        handle = None
        if name != DENSE:
            handle = sharpv.apply(self.model, **{"memory": None, "retention": self.retention, **PRUNED[name]})
        cuda = self.model.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        clock, count = FirstToken(), {"max_new_tokens": self.tokens, "min_new_tokens": self.tokens}
        with without_tower(self.model, self.encoded):
            start = time.perf_counter()
            self.model.generate(**self.inputs, **count, do_sample=False, streamer=clock)
            end = time.perf_counter()
        assert clock.seen is not None
        self.first[name].append(clock.seen - start)
        self.token[name].append((end - clock.seen) / (self.tokens - 1))
        if cuda:
            self.peak[name] = torch.cuda.max_memory_allocated()
        if handle is not None:
            handle.remove()
            report = handle.report
            assert report is not None and report.kv_bytes is not None and report.dense_kv_bytes is not None
            self.kv[name], self.kv[DENSE] = report.kv_bytes, report.dense_kv_bytes

    def cases(self) -> dict[str, Callable[[], Any]]:
        cases: dict[str, Callable[[], Any]] = {"tower": self.tower, "tower, still": self.tower_once}
        cases[f"answer, {DENSE}"] = lambda: self.answer(DENSE)
        for name, options in PRUNED.items():
            method = options.get("method", "sharpv")
            cases |= {
                f"choosing, {name}": lambda method=method: self.choose(method),
                f"pruning, {name}": lambda method=method: self.prune(method),
                f"answer, {name}": lambda name=name: self.answer(name),
            }
        return cases

    def rows(self, seconds: dict[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
        """Per row and column the seconds of each round."""
        rows = {}
        for name in (DENSE, *PRUNED, STILL):
            of = "SharpV" if name == STILL else name
            first, token = np.array(self.first[of][1:]), np.array(self.token[of][1:])
            own = {"tower": seconds["tower, still" if name == STILL else "tower"]}
            if name != DENSE:
                own |= {"choosing": seconds[f"choosing, {of}"], "pruning": seconds[f"pruning, {of}"]}
            rows[name] = {**own, "first": first, "ttft": own["tower"] + first, "token": token}
        self.kv[STILL] = self.kv["SharpV"]
        return rows


def main(
    architecture: Annotated[str, typer.Option(help=", ".join(ARCHITECTURES))] = "llava-onevision-0.5b",
    frames: Annotated[int, typer.Option(help="Frames of 196 tokens (on Qwen: of two pictures).")] = 8,
    retention: Annotated[float, typer.Option(help="Kept share of the visual tokens.")] = 0.12,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of an answer.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is run.")] = 3,
    layers: Annotated[int | None, typer.Option(help="Only so many layers of tower and language model.")] = None,
    clip: Annotated[
        Path, typer.Option(help="For decoding and the processor; else a sample.", show_default=False)
    ] = SAMPLE,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the model.")] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    model = build(architecture, device, dtype, layers)
    run = Run(model, prompt(model, frames), retention, tokens)
    product, operations = matrix_product(device, model.dtype)
    cases = {**run.cases(), **reading(clip, frames, model.config.model_type), "product": product}
    seconds = interleaved(cases, rounds, device)
    rows = run.rows(seconds)
    dense, length = rows[DENSE], run.inputs["input_ids"].shape[1]
    share = float(np.median(prefill_flops(model, length) / dense["first"] / (operations / seconds["product"])))
    facts: dict[str, Any] = {
        name: {key: float(np.median(value)) for key, value in own.items()} | {"kv_bytes": run.kv[name]}
        for name, own in rows.items()
    }
    cut = "" if layers is None else f", cut to {layers} layers of tower and language model"
    where = f"{machine(device, threads)}, transformers {transformers.__version__}"
    lines = [
        f"# Where the time goes: {architecture}",
        "",
        f"Random weights{cut}, {dtype}, {where}. {frames} frames of {run.layout.tokens_per_frame} tokens, a prompt of "
        f"{length} tokens, kept {100 * retention:g} % (set: random weights know no redundancy), {tokens} tokens "
        f"answered. Medians of {rounds} interleaved rounds; ratios are paired by round, the middle half of them in "
        "brackets. TTFT is the sum of the tower and of what follows up to the first token, timed one after the other, "
        "without decoding and the processor. Written by `python benchmarks/latency.py`.",
        "",
        f"| milliseconds | {' | '.join(COLUMNS.values())} | KV cache |",
        f"| --- |{' --- |' * (len(COLUMNS) + 1)}",
    ]
    for name in rows:
        cells = [f"{1000 * facts[name][column]:.4g}" if column in facts[name] else "" for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} | {run.kv[name] / 1e6:.4g} MB |")
    lines += ["", "How many times as fast as dense, and what it costs and keeps of dense:", ""]
    lines += ["| | prefill | TTFT | per token | choosing and trimming, of dense TTFT | KV cache | peak memory |"]
    lines += [f"| --- |{' --- |' * 6}"]
    for name, own in list(rows.items())[1:]:
        faster = {column: Ratio.of(dense[column], own[column]) for column in ("first", "ttft", "token")}
        cost = Ratio.of(own["pruning"], dense["ttft"])
        facts[name] |= {f"{column}_faster": vars(ratio) for column, ratio in faster.items()}
        facts[name]["pruning_of_dense_ttft"] = vars(cost)
        peak = f"{100 * run.peak[name] / run.peak[DENSE]:.1f} %" if name in run.peak else ""
        cells = [*map(str, faster.values()), f"{100 * cost.median:.2f} %"]
        lines.append(f"| {name} | {' | '.join(cells)} | {100 * run.kv[name] / run.kv[DENSE]:.1f} % | {peak} |")
    read = {name: 1000 * float(np.median(seconds[name])) for name in ("decoding", "processor")}
    lines += [
        "",
        f"Before all that, alike for every row: decoding {read['decoding']:.4g} ms and the processor "
        f"{read['processor']:.4g} ms, of {clip.name}. The dense prefill computes at {100 * share:.0f} % of the rate of "
        "a large matrix product in the same run.",
    ]
    settings = {"architecture": architecture, "layers": layers, "frames": frames, "retention": retention,
                "tokens": tokens, "rounds": rounds, "dtype": dtype, "where": where}  # fmt: skip
    facts = {**settings, "rows": facts, "reading_ms": read, "share_of_matrix_product": share, "peak_bytes": run.peak}
    publish(f"latency_{architecture}", lines, facts)


def reading(clip: Path, frames: int, model_type: str) -> dict[str, Callable[[], Any]]:
    """Decoding and the model's own video processor."""
    pictures = frames * (1 if model_type == "llava_onevision" else 2)
    read, processor = video.read(clip, frames=pictures), PROCESSORS[model_type]()
    given = {"video_metadata": [read.metadata()], "do_sample_frames": False, "return_tensors": "pt"}
    return {
        "decoding": lambda: video.read(clip, frames=pictures),
        "processor": lambda: processor([read.frames], **given),
    }


if __name__ == "__main__":
    typer.run(main)
