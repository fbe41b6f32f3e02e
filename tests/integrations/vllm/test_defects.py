"""What vLLM's own pruning does wrong and ours does not: each test fails on ``evs`` and says so, until vLLM mends it.

``docs/upstream`` has a report of each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from prompts import PROMPTS, Prompt, ask
from small import NAMES, STOCK

from sharpv.integrations.vllm.engine import CPU_WORKER

RATE = 0.75
SPARSE = 2 / 101
"""Frames a second: two frames, one step of time, are 101 seconds and as many positions."""


def methods(report: str) -> Any:
    broken = pytest.param("evs", marks=pytest.mark.xfail(strict=True, reason=f"docs/upstream/{report}.md"))
    return pytest.mark.parametrize("method", ["sharpv", broken])


def pruned(method: str, **options: Any) -> dict[str, Any]:
    """With our worker for vLLM's own method too, which would not get as far on a CPU."""
    worker = {"worker_cls": CPU_WORKER} if method == "evs" else {}
    return {
        "video_pruning_method": method, "video_pruning_rate": RATE, "enable_prefix_caching": False, **worker, **options,
    }  # fmt: skip


@pytest.fixture(scope="module")
def full_positions(engine):
    """Positions of a prompt that is not pruned, as a list of (t, h, w)."""
    known: dict[Any, list[tuple[int, ...]]] = {}

    def of(name: str, prompt: Prompt, fps: float = 2.0) -> list[tuple[int, ...]]:
        key = (name, prompt, fps)
        if key not in known:
            known[key] = triples(ask(engine(name, enable_prefix_caching=False), [prompt], name, fps)[0].positions)
        return known[key]

    return of


def triples(positions: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(each) for each in positions.T.tolist()]


def is_part_of(positions: torch.Tensor, full: list[tuple[int, ...]]) -> bool:
    """Whether the positions are those of some of the full prompt's tokens, in order."""
    rest = iter(full)
    return all(each in rest for each in triples(positions))


@methods("outer-marker")
def test_positions_are_among_those_of_the_full_prompt(method, engine, full_positions):
    full = full_positions("qwen3_vl", PROMPTS["long video"])
    assert is_part_of(ask(engine("qwen3_vl", **pruned(method)), [PROMPTS["long video"]], "qwen3_vl")[0].positions, full)


@methods("bfloat16-positions")
def test_bfloat16_keeps_positions_beyond_256(method, engine, full_positions):
    full = full_positions("qwen2_5_vl", PROMPTS["long video"], fps=SPARSE)
    sparse = engine("qwen2_5_vl", **pruned(method, dtype="bfloat16"))
    assert is_part_of(ask(sparse, [PROMPTS["long video"]], "qwen2_5_vl", SPARSE)[0].positions, full)


@methods("whole-seconds")
def test_a_step_of_one_and_a_half_seconds(method, engine, full_positions):
    full = full_positions("qwen2_5_vl", PROMPTS["long video"], fps=4 / 3)
    answer = ask(engine("qwen2_5_vl", **pruned(method)), [PROMPTS["long video"]], "qwen2_5_vl", 4 / 3)[0]
    assert is_part_of(answer.positions, full)


@methods("chunks-and-prefixes")
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_pieces_and_repeats_change_nothing(name, method, engine):
    prompts = [PROMPTS["long video"], PROMPTS["two lengths"], PROMPTS["image, video"]]
    whole = [ask(engine(name, **pruned(method)), [prompt], name)[0] for prompt in prompts]
    pieces = engine(name, **pruned(method, enable_prefix_caching=True, block_size=32, max_num_batched_tokens=48))
    for _ in range(2):
        assert all(ask(pieces, [p], name)[0].agrees(w) for p, w in zip(prompts, whole, strict=True))


@methods("ignored-onevision")
def test_llava_onevision_does_not_ignore_a_rate(method, engine):
    dense = engine(STOCK["llava_onevision"], enable_prefix_caching=False)
    full = ask(dense, [PROMPTS["video"]], "llava_onevision")[0].length
    rated = engine(STOCK["llava_onevision"], **pruned(method))
    assert ask(rated, [PROMPTS["video"]], "llava_onevision")[0].length < full


@pytest.mark.parametrize("name", NAMES)
def test_videos_of_two_lengths_with_sharpv(name, engine):
    assert ask(engine(name, **pruned("sharpv")), [PROMPTS["two lengths"]], name)[0].tokens


SCRIPT = """
import sys; sys.path[:0] = sys.argv[1:2]
import conftest
from prompts import PROMPTS, for_vllm
from vllm import LLM
LLM(sys.argv[2], dtype="float32", enforce_eager=True, max_model_len=2048, video_pruning_rate=float(sys.argv[5]),
    limit_mm_per_prompt={"video": 2, "image": 1}).generate(for_vllm(PROMPTS[sys.argv[4]], sys.argv[3]))
"""


def run_stock(folder: Path, name: str, title: str, rate: float) -> subprocess.CompletedProcess[str]:
    """vLLM without any plugin, in a process of its own, which its engine may take with it."""
    here = str(Path(__file__).parent)
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, here, str(folder), name, title, str(rate)],
        env={**os.environ, "VLLM_PLUGINS": ""}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_stock_vllm_on_cpu_cannot_prune_at_all(checkpoint):
    """docs/upstream/cpu-pruning-flag.md; when this fails, our worker has lost its first reason."""
    run = run_stock(checkpoint("qwen2_5_vl"), "qwen2_5_vl", "video", 0.75)
    assert run.returncode != 0
    assert "index put" in run.stderr or "index_put" in run.stderr, run.stderr[-2000:]


def test_stock_vllm_ends_on_two_lengths_of_llava_onevision(checkpoint):
    """docs/upstream/two-lengths.md"""
    run = run_stock(checkpoint(STOCK["llava_onevision"]), "llava_onevision", "two lengths", 0.0)
    assert run.returncode != 0
    assert "Expected multimodal embeddings to be a sequence of 2D tensors" in run.stderr, run.stderr[-2000:]
