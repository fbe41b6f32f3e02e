"""A training run that survives a kill: its state on disk, its log, its loop. Pocket's and smol's are two of them."""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from .stages import Settings, VisionStage
from .text_stage import TextStage

MONITOR_SEED, MONITOR_TEXTURES = 999, 777
"""The videos that a run is watched on are in neither the training nor the evaluation set."""


class Log:
    """Appends records to a JSON-lines file and prints them."""

    def __init__(self, path: Path) -> None:
        self.path, self.started = path, time.perf_counter()

    def write(self, **record: Any) -> None:
        record["seconds"] = round(time.perf_counter() - self.started, 1)
        record["cpu_seconds"] = round(time.process_time(), 1)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        sys.stdout.write("  ".join(f"{name} {value}" for name, value in record.items()) + "\n")
        sys.stdout.flush()


class TrainingRun(ABC):
    """A run in a folder: ``log.jsonl`` grows, ``state.pt`` is what it continues from.

    Attributes:
        step: steps done in the current stage.
        current: the stage.
    """

    log_every: ClassVar[int]
    save_every: ClassVar[int]
    monitor_every: ClassVar[int]
    current: VisionStage | TextStage

    def __init__(self, out: Path, settings: Settings) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.settings, self.step = out, settings, 0
        self.log = Log(out / "log.jsonl")
        if not self.state_path.exists():
            self.log.write(settings=asdict(settings))

    @property
    def state_path(self) -> Path:
        """Where the state is kept."""
        return self.out / "state.pt"

    @abstractmethod
    def learned(self) -> dict[str, Any]:
        """What the state holds besides settings, step, optimiser and the stage's own heads."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`learned` gave, and make ``current`` the stage that it belongs to."""

    @abstractmethod
    def monitor(self) -> None:
        """Log the accuracy on a few videos, and write what others may use already."""

    def next_stage(self) -> bool:
        """Go on to the next stage, with ``step`` 0; False at the end."""
        return False

    def one_step(self) -> dict[str, float]:
        """One step of the optimiser; what was seen."""
        stage = self.current
        for group in stage.optimiser.param_groups:
            group["lr"] = stage.rate(self.step) * group.get("scale", 1.0)
        stage.optimiser.zero_grad(set_to_none=True)
        loss, facts = stage.loss(self.step)
        loss.backward()
        facts.update(self.besides())
        torch.nn.utils.clip_grad_norm_(stage.parameters, 1.0)
        stage.optimiser.step()
        self.step += 1
        return facts

    def besides(self) -> dict[str, float]:
        """Gradients of something besides the stage's loss, and what was seen."""
        return {}

    def save(self) -> None:
        """Write the state atomically."""
        state = {
            "settings": self.settings,
            "step": self.step,
            "extra": self.current.extra.state_dict(),
            "optimiser": self.current.optimiser.state_dict(),
            **self.learned(),
        }
        fresh = self.state_path.with_suffix(".tmp")
        torch.save(state, fresh)
        fresh.replace(self.state_path)

    def resume(self) -> None:
        """Go on from the state on disk.

        Raises:
            ValueError: it was made with other settings.
        """
        state = torch.load(self.state_path, map_location=self.current.device, weights_only=False)
        if state["settings"] != self.settings:
            raise ValueError(f"{self.state_path} was made with {state['settings']}, not {self.settings}")
        self.step = state["step"]
        self.restore(state)
        self.current.extra.load_state_dict(state["extra"])
        self.current.optimiser.load_state_dict(state["optimiser"])

    def train(self, minutes: float = 0) -> bool:
        """Train to the end, or for at most ``minutes`` (0: no limit); True if the end was reached."""
        started, facts = time.perf_counter(), defaultdict(list)
        while self.step < self.current.steps or self.next_stage():
            for name, value in self.one_step().items():
                facts[name].append(value)
            if self.step % self.log_every == 0:
                means = {name: round(float(np.nanmean(values)), 4) for name, values in facts.items()}
                self.log.write(stage=self.current.name, step=self.step, **means)
                facts.clear()
            if self.step % self.save_every == 0:
                self.save()
            watched = self.step % self.monitor_every == 0 or self.step == self.current.steps
            if isinstance(self.current, TextStage) and watched:
                self.monitor()
            if minutes and time.perf_counter() - started > 60 * minutes:
                self.save()
                return False
        return True
