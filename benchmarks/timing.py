"""Timing side by side: interleaved rounds, paired ratios, and what a page of results says of its machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track


def interleaved(cases: Mapping[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, NDArray[Any]]:
    """Seconds of each case, one per round.

    A round runs every case once, in a new order; one more goes before to warm up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    rng = np.random.default_rng(0)
    for index in track(range(rounds + 1), "timing", console=Console(stderr=True)):
        for name in rng.permutation(list(cases)):
            wait(device)
            start = time.perf_counter()
            cases[name]()
            wait(device)
            if index:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(own) for name, own in seconds.items()}


def wait(device: str) -> None:
    """Until the device has done what it was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Ratio:
    """The median over rounds of one case's time to another's in the same round, and the middle half of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, own: NDArray[Any], base: NDArray[Any]) -> Ratio:
        low, median, high = np.percentile(own / base, [25, 50, 75])
        return cls(float(median), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


def machine(device: str, threads: int) -> str:
    """The device and torch's version, in words."""
    own = torch.cuda.get_device_name() if device.startswith("cuda") else f"{platform.machine()} CPU, {threads} threads"
    return f"{own}, torch {torch.__version__}"


def matrix_product(device: str, dtype: torch.dtype, side: int = 2048) -> tuple[Callable[[], Any], float]:
    """A large matrix product to compare with, and its floating point operations."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    return lambda: a @ a, 2.0 * side**3
