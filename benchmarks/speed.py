"""What pruning costs and gains in time and memory: one command a case, everything side by side in one run.

    python benchmarks/speed.py scoring|criteria|scaling|latency|long [--device cuda --dtype bfloat16] [--smoke]

Architectures of real size, random weights: these know no redundancy, so the share to keep is given. Times are medians
of interleaved rounds, ratios are paired by round, the middle half of them in brackets. Pages go to docs/results.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import transformers
import typer
from common import RESULTS, percent, publish, table
from matplotlib.figure import Figure
from numpy.typing import NDArray
from real_size import ARCHITECTURES, EveryOther, build, prefill_flops, prompt, stub_tower, without_tower
from timing import Ratio, interleaved, machine, matrix_product
from torch import Tensor
from torch.nn import functional
from transformers import LlavaOnevisionVideoProcessor, PreTrainedModel, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

import sharpv
from sharpv import Config, Contribution, KeepLayers, SharpV, read_video
from sharpv.asking import FirstToken
from sharpv.evaluation.statistics import RESAMPLES
from sharpv.methods import METHODS, DivPrune, Method
from sharpv.methods.budget import Budget, Present
from sharpv.models import find_family
from sharpv.vision.asked import Encoding
from sharpv.vision.encoding import encode_videos


@dataclass(frozen=True)
class Case:
    """How a case is run: what was asked for on the command line."""

    name: str
    rounds: int
    device: str
    dtype: str
    threads: int
    architecture: str
    frames: int
    layers: int | None
    retention: float
    out: Path
    smoke: bool

    @property
    def where(self) -> str:
        return f"{self.dtype}, {machine(self.device, self.threads)}, transformers {transformers.__version__}"

    @property
    def command(self) -> str:
        return f"`python benchmarks/speed.py {self.name}`"

    def build(self, layers: int | None) -> PreTrainedModel:
        return build(self.architecture, self.device, self.dtype, layers, narrow=self.smoke)

    def timed(self, cases: dict[str, Callable[[], Any]]) -> dict[str, NDArray[Any]]:
        return interleaved(cases, self.rounds, self.device)


# choosing -------------------------------------------------------------------------------------------------------------

PLAIN, COPY, READ = "EVS, as plainly as it can be written", "a copy of the features", "a sum over the features"


def scoring(case: Case) -> None:
    """What choosing costs: every method on the same features, and the limits of the machine beside them."""
    shape = (4, 49, 64) if case.smoke else (case.frames, 196, 3584)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    features = features.to(case.device, getattr(torch, case.dtype))
    target = torch.empty_like(features)
    methods: dict[str, Method] = {name: method() for name, method in METHODS.items()}
    methods["divprune, whole video"] = DivPrune(scope="video")
    cases: dict[str, Callable[[], Any]] = {
        name: partial(choose, method, features, case.retention) for name, method in methods.items()
    }
    cases |= {
        PLAIN: lambda: plain_evs(features, case.retention),
        COPY: lambda: target.copy_(features),
        READ: features.sum,
    }
    seconds = case.timed(cases)
    own = seconds["sharpv"]
    # the copy reads and writes every byte, scoring must read each once
    bandwidth = {"copy": Ratio.of(seconds[COPY], 2 * own), "sum": Ratio.of(seconds[READ], own)}
    rows, facts = [], {}
    for name in cases:
        ratio, median = Ratio.of(seconds[name], own), float(np.median(seconds[name]))
        facts[name] = {**vars(ratio), "seconds": median}
        rows.append([name, ratio, methods[name].cost if name in methods else "T N D", f"{1000 * median:.4g}"])
    share = {name: f"{percent(ratio.median, 0)}" for name, ratio in bandwidth.items()}
    lines = [
        "# Scoring and selection, relative to SharpV",
        "",
        f"{' x '.join(map(str, shape))} random features, {percent(case.retention, 0)} kept, {case.where}; median of "
        f"{case.rounds} interleaved rounds, the middle half of them in brackets. Written by {case.command}.",
        "",
        *table(["method", "time to SharpV's", "grows as", "milliseconds, this machine"], rows),
        "",
        f"SharpV reads the features, which it must do once, at {share['copy']} of the bandwidth of a copy, which reads "
        f"and writes them, and at {share['sum']} of that of a sum, which only reads.",
    ]
    shares = {name: vars(ratio) for name, ratio in bandwidth.items()}
    publish(case.out, "scoring_time", lines, {"shape": shape, "cases": facts, "bandwidth_share": shares})


def choose(method: Method, features: Tensor, retention: float | None) -> Tensor:
    frames, size, _ = features.shape
    return method.choose(features, Budget(retention), Present.everywhere(frames, size, features.device)).keep


def plain_evs(features: Tensor, retention: float) -> Tensor:
    """EVS's rule (https://arxiv.org/abs/2510.14624) in two calls of torch; the first frame comes first."""
    change = 1 - functional.cosine_similarity(features[1:], features[:-1], dim=-1)
    scores = torch.cat([torch.full_like(change[:1], 255.0), change]).flatten()
    keep = torch.zeros_like(scores, dtype=torch.bool)
    keep[scores.argsort(descending=True, stable=True)[: int(retention * len(scores))]] = True
    return keep


# deciding -------------------------------------------------------------------------------------------------------------


def criteria(case: Case) -> None:
    """What deciding costs: prefill with each criterion of the second stage, set so that nothing is forgotten."""
    layers = 2 if case.smoke else case.layers or 6
    model = stub_tower(case.build(layers))
    inputs = prompt(model, case.frames)
    rules = {
        "no second stage": None,
        "paper's cosine": -1.0,
        "contribution, 1 row": Contribution(threshold=1e-9, rows=1),
        "contribution, 4 rows": Contribution(threshold=1e-9, rows=4),
        "named layers": KeepLayers(tuple(range(layers))),
    }

    @torch.no_grad()
    def prefill(rule: Any) -> None:
        with sharpv.apply(model, retention=1.0, memory=rule):
            model(**inputs, use_cache=True, logits_to_keep=1)

    seconds = case.timed({name: partial(prefill, rule) for name, rule in rules.items()})
    rows, facts = [], {}
    for name, own in seconds.items():
        ratio = Ratio.of(own, seconds["no second stage"])
        facts[name] = {**vars(ratio), "seconds": float(np.median(own))}
        rows.append([name, ratio, f"{np.median(own):.3f}"])
    lines = [
        "# What deciding costs at prefill",
        "",
        f"Prefill of {inputs['input_ids'].shape[1]} tokens, all visual ones kept, on {layers} decoder layers of "
        f"{case.architecture} (random weights, stub vision tower), {case.where}; median of {case.rounds} interleaved "
        f"rounds, the middle half of them in brackets. Nothing is forgotten. Written by {case.command}.",
        "",
        *table(["criterion", "prefill time to that without", "seconds, this machine"], rows),
    ]
    publish(case.out, "criterion_cost", lines, {"layers": layers, "rows": facts})


# growth ---------------------------------------------------------------------------------------------------------------

BASE = {"frames": 64, "tokens": 196, "width": 896}


def scaling(case: Case) -> None:
    """How cost grows: scoring against frames, tokens a frame and width; prefill against frames."""
    sizes = {"frames": doubling(8, 1024), "tokens": doubling(49, 1568), "width": doubling(256, 8192)}
    counts = doubling(2, 4 if case.smoke else 32)
    if case.smoke:
        sizes = {name: values[:2] for name, values in sizes.items()}
    measured = {f"scoring against {name}": growth(case, name, values) for name, values in sizes.items()}
    dense, pruned = prefill_growth(case, counts)
    kept = f"prefill, kept {100 * case.retention:g} %, against frames"
    measured |= {"dense prefill against frames": dense, kept: pruned}
    rows, facts = [], {}
    for name, seconds in measured.items():
        slope, low, high = exponent(seconds)
        medians = {n: float(np.median(own)) for n, own in seconds.items()}
        facts[name] = {"seconds": medians, "exponent": slope, "interval": [low, high]}
        times = ", ".join(f"{1000 * value:.3g}" for value in medians.values())
        rows.append([name, ", ".join(map(str, medians)), times, f"{slope:.2f} [{low:.2f}, {high:.2f}]"])
    lines = [
        "# How cost grows",
        "",
        f"{case.where}; medians of {case.rounds} interleaved rounds. Scoring with selection around "
        f"{' x '.join(f'{n} {name}' for name, n in BASE.items())}, one of them varied; prefill on {case.layers or 2} "
        f"decoder layers of {case.architecture}, 196 tokens a frame, pruning included. t = a n^b through the upper "
        f"half of the sizes, 95 % bootstrap intervals. Written by {case.command}.",
        "",
        *table(["", "sizes", "milliseconds, smallest to largest", "exponent b"], rows),
        "",
        "![Time against size, both axes logarithmic](scaling.svg)",
    ]
    publish(case.out, "scaling", lines, {"where": case.where, "growth": facts})
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, fact in facts.items():
        own = np.array(list(fact["seconds"]))
        axes.loglog(own / own[0], list(fact["seconds"].values()), marker="o", markersize=3, label=name)
    axes.set(xlabel="size, as a multiple of the smallest", ylabel="seconds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(case.out / "scaling.svg")


def doubling(first: int, last: int) -> list[int]:
    return [first * 2**i for i in range(20) if first * 2**i <= last]


def growth(case: Case, name: str, sizes: list[int]) -> dict[int, NDArray[Any]]:
    """Seconds of scoring and selection, per size of one dimension."""
    base = {"frames": 4, "tokens": 16, "width": 64} if case.smoke else BASE
    shapes = {n: {**base, name: n} for n in sizes}
    # one buffer serves all sizes
    buffer = torch.randn(max(int(np.prod(list(shape.values()))) for shape in shapes.values()), device=case.device)
    buffer = buffer.to(getattr(torch, case.dtype))
    views = {n: buffer[: int(np.prod(list(shape.values())))].view(*shape.values()) for n, shape in shapes.items()}
    timed = case.timed({str(n): partial(choose, SharpV(), view, 0.25) for n, view in views.items()})
    return {n: timed[str(n)] for n in sizes}


def prefill_growth(case: Case, counts: list[int]) -> tuple[dict[int, NDArray[Any]], dict[int, NDArray[Any]]]:
    """Seconds of a prefill, dense and pruned, per number of frames; the tower's answer is at hand."""
    model = case.build(case.layers or 2)
    width = model.config.text_config.hidden_size

    def prepared(frames: int) -> tuple[dict[str, Any], Any]:
        inputs = prompt(model, frames)
        inputs["pixel_values_videos"] = inputs["pixel_values_videos"][..., :1, :1]  # only their number counts
        rows = torch.randn(1, frames * 196 + 1, width, device=case.device).to(model.dtype)
        return inputs, BaseModelOutputWithPooling(pooler_output=rows)

    @torch.no_grad()
    def prefill(given: tuple[dict[str, Any], Any], config: Config | None) -> None:
        inputs, encoded = given
        with without_tower(model, encoded):
            if config is None:
                model(**inputs, use_cache=True, logits_to_keep=1)
                return
            with sharpv.apply(model, config):
                model(**inputs, use_cache=True, logits_to_keep=1)

    rows = {"dense": None, "pruned": Config(retention=case.retention)}
    ready = {n: prepared(n) for n in counts}
    cases = {f"{row} {n}": partial(prefill, ready[n], config) for n in counts for row, config in rows.items()}
    timed = case.timed(cases)
    return {n: timed[f"dense {n}"] for n in counts}, {n: timed[f"pruned {n}"] for n in counts}


def exponent(seconds: dict[int, NDArray[Any]]) -> tuple[float, float, float]:
    """b of t = a n^b over the upper half of the sizes, and its interval by bootstrap over the rounds."""
    sizes = list(seconds)[-max(2, len(seconds) // 2) :]
    logs, times = np.log(sizes), np.stack([seconds[n] for n in sizes])
    slope = np.polyfit(logs, np.log(np.median(times, axis=1)), 1)[0]
    drawn = np.random.default_rng(0).integers(times.shape[1], size=(RESAMPLES, times.shape[1]))
    resampled = np.log(np.median(times[:, drawn], axis=2))  # (sizes, resamples)
    low, high = np.percentile(np.polyfit(logs, resampled, 1)[0], [2.5, 97.5])
    return float(slope), float(low), float(high)


# an answer ------------------------------------------------------------------------------------------------------------

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
class Answers:
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
        self.configs = {
            name: Config(**{"method": "sharpv", "retention": self.retention, **options})
            for name, options in PRUNED.items()
        }

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
        return encode_videos(self.model, self.family, Encoding("changed:threshold=0"), Budget(), self.still)

    @torch.no_grad()
    def prune(self, config: Config) -> None:
        with without_tower(self.model, self.encoded):
            sharpv.trim(self.model, self.inputs, config, memory=None)

    def answer(self, name: str) -> None:
        """Everything after the tower."""
        pruning = None if name == DENSE else sharpv.apply(self.model, self.configs[name])
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
        if pruning is not None:
            pruning.remove()
            report = pruning.report
            assert report is not None and report.kv_bytes is not None and report.dense_kv_bytes is not None
            self.kv[name], self.kv[DENSE] = report.kv_bytes, report.dense_kv_bytes

    def cases(self) -> dict[str, Callable[[], Any]]:
        cases: dict[str, Callable[[], Any]] = {"tower": self.tower, "tower, still": self.tower_once}
        cases[f"answer, {DENSE}"] = partial(self.answer, DENSE)
        for name, config in self.configs.items():
            cases |= {
                f"choosing, {name}": partial(choose, config.first, self.features, config.retention),
                f"pruning, {name}": partial(self.prune, config),
                f"answer, {name}": partial(self.answer, name),
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


def latency(case: Case) -> None:
    """Where the time goes: from a clip to the last token of an answer, dense and pruned."""
    layers, tokens = (2, 2) if case.smoke else (case.layers, 16)
    model = case.build(layers)
    answers = Answers(model, prompt(model, case.frames), case.retention, tokens)
    product, operations = matrix_product(case.device, model.dtype, 64 if case.smoke else 2048)
    seconds = case.timed({**answers.cases(), **reading(case.frames, model.config.model_type), "product": product})
    rows = answers.rows(seconds)
    dense, length = rows[DENSE], answers.inputs["input_ids"].shape[1]
    share = float(np.median(prefill_flops(model, length) / dense["first"] / (operations / seconds["product"])))
    facts: dict[str, Any] = {
        name: {key: float(np.median(value)) for key, value in own.items()} | {"kv_bytes": answers.kv[name]}
        for name, own in rows.items()
    }
    milliseconds = [
        [name, *(f"{1000 * own[column]:.4g}" if column in own else "" for column in COLUMNS),
         f"{answers.kv[name] / 1e6:.4g} MB"]
        for name, own in facts.items()
    ]  # fmt: skip
    faster_rows = []
    for name, own in list(rows.items())[1:]:
        faster = {column: Ratio.of(dense[column], own[column]) for column in ("first", "ttft", "token")}
        cost = Ratio.of(own["pruning"], dense["ttft"])
        facts[name] |= {f"{column}_faster": vars(ratio) for column, ratio in faster.items()}
        facts[name]["pruning_of_dense_ttft"] = vars(cost)
        peak = percent(answers.peak[name] / answers.peak[DENSE]) if name in answers.peak else ""
        cells = [*faster.values(), percent(cost.median, 2), percent(answers.kv[name] / answers.kv[DENSE]), peak]
        faster_rows.append([name, *cells])
    read = {name: 1000 * float(np.median(seconds[name])) for name in ("decoding", "processor")}
    cut = "" if layers is None else f", cut to {layers} layers of tower and language model"
    lines = [
        f"# Where the time goes: {case.architecture}",
        "",
        f"Random weights{cut}, {case.where}. {case.frames} frames of {answers.layout.tokens_per_frame} tokens, "
        f"a prompt of {length} tokens, kept {100 * case.retention:g} % (set: random weights know no redundancy), "
        f"{tokens} tokens answered. Medians of {case.rounds} interleaved rounds; ratios are paired by round, the "
        "middle half of them in brackets. TTFT is the sum of the tower and of what follows up to the first token, "
        f"timed one after the other, without decoding and the processor. Written by {case.command}.",
        "",
        *table(["milliseconds", *COLUMNS.values(), "KV cache"], milliseconds),
        "",
        "How many times as fast as dense, and what it costs and keeps of dense:",
        "",
        *table(
            ["", "prefill", "TTFT", "per token", "choosing and trimming, of dense TTFT", "KV cache", "peak memory"],
            faster_rows,
        ),
        "",
        f"Before all that, alike for every row: decoding {read['decoding']:.4g} ms and the processor "
        f"{read['processor']:.4g} ms, of {SAMPLE.name}. The dense prefill computes at {percent(share, 0)} of the rate "
        "of a large matrix product in the same run.",
    ]
    about = {"architecture": case.architecture, "layers": layers, "frames": case.frames, "where": case.where}
    about |= {"rows": facts, "reading_ms": read, "share_of_matrix_product": share, "peak_bytes": answers.peak}
    publish(case.out, f"latency_{case.architecture}", lines, about)


def reading(frames: int, model_type: str) -> dict[str, Callable[[], Any]]:
    """Decoding and the model's own video processor."""
    pictures = frames * (1 if model_type == "llava_onevision" else 2)
    read, processor = read_video(SAMPLE, frames=pictures), PROCESSORS[model_type]()
    given = {"video_metadata": [read.metadata()], "do_sample_frames": False, "return_tensors": "pt"}
    return {
        "decoding": lambda: read_video(SAMPLE, frames=pictures),
        "processor": lambda: processor([read.frames], **given),
    }


# long videos ----------------------------------------------------------------------------------------------------------

PIECE = 16
LONG_CASES: dict[str, dict[str, Any] | None] = {
    "dense": None,
    "kept 6 %": {"retention": 0.06},
    f"kept 6 %, {PIECE} frames in the tower at a time": {"retention": 0.06, "frames_at_once": PIECE},
    "the same, fixed camera, encode=kept": {"retention": 0.06, "frames_at_once": PIECE, "encode": "kept"},
}


def long(case: Case) -> None:
    """Peak memory of a long video: dense, pruned, and pruned with the vision tower in pieces. Linux.

    Each case is a process of its own, which is asked for one token; what counts is the peak above what it held before,
    that is beyond weights and pixels. Memory hardly depends on how many layers a model has.
    """
    counts, limit = ((20,), 0) if case.smoke else ((64, 256, 1024), 64)
    rows: dict[str, dict[int, int]] = {name: {} for name in LONG_CASES}
    for name, options in LONG_CASES.items():
        for count in counts:
            if count <= limit or "frames_at_once" in (options or {}):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                    rows[name][count] = alone.submit(peak, case, name, count).result()
    cells = [
        [name, *(f"{own[count] / 2**30:.2f} GiB" if count in own else "not run" for count in counts)]
        for name, own in rows.items()
    ]
    lines = [
        "# Memory of a long video",
        "",
        f"{case.architecture} cut to {case.layers or 1} layer(s) of tower and language model, random weights, "
        f"{case.where}. Peak resident memory above what the process held before the call, that is beyond weights and "
        f"pixels; prefill and one token, each case in a process of its own. Written by {case.command}.",
        "",
        *table(["", *(f"{count:,} frames" for count in counts)], cells),
    ]
    publish(case.out, "long_video", lines, {"architecture": case.architecture, "bytes": rows})


@torch.no_grad()
def peak(case: Case, name: str, frames: int) -> int:
    """Bytes of one case, in this process. VmRSS is what it holds, VmHWM the most that it held."""
    torch.set_num_threads(case.threads)
    model = case.build(case.layers or 1)
    inputs, options = prompt(model, frames), LONG_CASES[name]
    if options is not None:
        sharpv.apply(model, **options)
        if "encode" in options:  # a square moves
            pixels = inputs["pixel_values_videos"]
            pixels[:, 1:] = pixels[:, :1]
            pixels[:, :, :, :64, :64] = torch.randn(frames, 3, 64, 64, dtype=pixels.dtype)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = memory("VmRSS")
    model.generate(**inputs, max_new_tokens=1, do_sample=False)
    return memory("VmHWM") - before


def memory(name: str) -> int:
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


@dataclass(frozen=True)
class Default:
    run: Callable[[Case], None]
    rounds: int
    frames: int
    retention: float = 0.12


CASES = {
    "scoring": Default(scoring, 9, 32, 0.25),
    "criteria": Default(criteria, 7, 8),
    "scaling": Default(scaling, 7, 32),
    "latency": Default(latency, 3, 8),
    "long": Default(long, 1, 1024),
}


def main(
    case: Annotated[str, typer.Argument(help="A wrong name lists them.")],
    rounds: Annotated[int | None, typer.Option(help="Times that each is run.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of 196 tokens (on Qwen: of two pictures).")] = None,
    architecture: Annotated[str, typer.Option(help=", ".join(ARCHITECTURES))] = "llava-onevision-0.5b",
    layers: Annotated[int | None, typer.Option(help="Only so many layers of tower and language model.")] = None,
    retention: Annotated[float | None, typer.Option(help="Kept share of the visual tokens.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the model and the features.")] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    out: Annotated[Path, typer.Option(help="Where pages go.")] = RESULTS,
    smoke: Annotated[bool, typer.Option(help="The smallest size, to see that it runs.")] = False,
) -> None:
    if case not in CASES:
        raise typer.BadParameter(f"there is no case {case!r}; there are {', '.join(CASES)}")
    if smoke and out == RESULTS:
        raise typer.BadParameter("--smoke needs an --out of its own")
    torch.set_num_threads(threads)
    chosen = CASES[case]
    given = Case(
        case, rounds or (2 if smoke else chosen.rounds), device, dtype, threads, architecture,
        frames or (2 if smoke else chosen.frames), layers or (1 if smoke else None), retention or chosen.retention,
        out, smoke,
    )  # fmt: skip
    chosen.run(given)


if __name__ == "__main__":
    typer.run(main)
