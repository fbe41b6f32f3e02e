"""vLLM's engine in the test's own process, on small checkpoints; ``make test-vllm`` sets what has to be set before."""

from __future__ import annotations

import os

from server import ON_A_SMALL_CPU

# before vLLM is imported; the engine runs in this process
os.environ.update(ON_A_SMALL_CPU, VLLM_ENABLE_V1_MULTIPROCESSING="0")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import small


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small checkpoint, by the name of its model."""
    root = tmp_path_factory.mktemp("checkpoints")
    os.environ["VLLM_CACHE_ROOT"] = str(root / "cache")

    def folder(name: str) -> Path:
        path = root / name
        return path if path.exists() else small.write(path, name)

    return folder


@pytest.fixture(scope="module")
def engine(checkpoint) -> Iterator[Callable[..., Any]]:
    """Makes an engine for a small model; one at a time, kept until another is asked for."""
    kept: dict[str, Any] = {}

    def make(name: str, **options: Any) -> Any:
        from vllm import LLM

        key = f"{name} {sorted(options.items(), key=str)}"
        if key not in kept:
            stop(kept)
            defaults = {
                "dtype": "float32", "enforce_eager": True, "max_model_len": 2048, "max_num_seqs": 4,
                "max_num_batched_tokens": 2048, "limit_mm_per_prompt": {"video": 2, "image": 1},
            }  # fmt: skip
            kept[key] = LLM(str(checkpoint(name)), **{**defaults, **options})
        return kept[key]

    yield make
    stop(kept)


def stop(engines: dict[str, Any]) -> None:
    """End engines before another one begins: they share the process's groups."""
    from vllm.distributed import cleanup_dist_env_and_memory

    for engine in engines.values():
        engine.llm_engine.engine_core.shutdown()
    engines.clear()
    cleanup_dist_env_and_memory()
