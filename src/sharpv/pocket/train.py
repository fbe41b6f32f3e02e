"""Train the pocket model from scratch: ``python -m sharpv.pocket.train DIR --seed 0``.

The budget is in steps (three hours of one CPU thread), so the result depends on the seed and not on the machine's
speed. A run that was killed continues from ``DIR/state.pt`` when started again. ``DIR/log.jsonl`` has one record every
few steps; ``DIR/model`` is the checkpoint that the Auto classes load. The shipped model is seed 1.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .evaluate import Summary, evaluation_set, extract_features, score, summarise
from .model import DEFAULT_SIZE, PocketSize, build_model, export, pixel_values, scale_features
from .stages import Settings, VisionStage, align_words
from .text_stage import TextStage
from .world import render, sample

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration

MONITOR_SEED, MONITOR_TEXTURES = 999, 777
_STAGES = ("vision", "text", "done")


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


class Run:
    """One training run and its state on disk."""

    def __init__(self, out: Path, settings: Settings, size: PocketSize = DEFAULT_SIZE, device: str = "cpu") -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.settings = out, settings
        self.log = Log(out / "log.jsonl")
        torch.manual_seed(settings.seed)
        self.model: LlavaOnevisionForConditionalGeneration = build_model(size).to(device)
        self.heads = None
        self.stage = "vision"
        self.step = 0
        self.current: VisionStage | TextStage = VisionStage(self.model, settings)
        if self.state_path.exists():
            self._resume()

    @property
    def state_path(self) -> Path:
        """Where the state is kept."""
        return self.out / "state.pt"

    def save(self) -> None:
        """Write the state atomically."""
        state = {
            "settings": self.settings,
            "stage": self.stage,
            "step": self.step,
            "model": self.model.state_dict(),
            "extra": self.current.extra.state_dict(),
            "optimiser": self.current.optimiser.state_dict(),
        }
        fresh = self.state_path.with_suffix(".tmp")
        torch.save(state, fresh)
        fresh.replace(self.state_path)

    def _resume(self) -> None:
        state = torch.load(self.state_path, map_location=self.model.device, weights_only=False)
        if state["settings"] != self.settings:
            raise ValueError(f"{self.state_path} was made with {state['settings']}, not {self.settings}")
        self.model.load_state_dict(state["model"])
        self.stage, self.step = state["stage"], state["step"]
        if self.stage != "vision":
            self.current = TextStage(self.model, self.settings)
        self.current.extra.load_state_dict(state["extra"])
        self.current.optimiser.load_state_dict(state["optimiser"])

    def train(self, log_every: int = 50, save_every: int = 200, monitor_every: int = 400, minutes: float = 0) -> bool:
        """Train to the end, or for at most ``minutes`` (0: no limit); True if the end was reached."""
        started, facts = time.perf_counter(), defaultdict(list)
        while self.stage != "done":
            if self.step == self.current.steps:
                self._next_stage()
                continue
            for name, value in self._one_step().items():
                facts[name].append(value)
            if self.step % log_every == 0:
                means = {name: round(float(np.nanmean(values)), 4) for name, values in facts.items()}
                self.log.write(stage=self.stage, step=self.step, **means)
                facts.clear()
            if self.step % save_every == 0:
                self.save()
            if self.stage == "text" and (self.step % monitor_every == 0 or self.step == self.current.steps):
                self.monitor()
            if minutes and time.perf_counter() - started > 60 * minutes:
                self.save()
                return False
        return True

    def _one_step(self) -> dict[str, float]:
        stage = self.current
        for group in stage.optimiser.param_groups:
            group["lr"] = stage.rate(self.step)
        loss, facts = stage.loss(self.step)
        stage.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.parameters, 1.0)
        stage.optimiser.step()
        self.step += 1
        return facts

    def _next_stage(self) -> None:
        """From the vision stage to the text stage, or from there to the end."""
        if isinstance(self.current, VisionStage):
            rng = np.random.default_rng([self.settings.seed, 5])
            videos = [render(sample(rng, self.settings.texture_seed), 8) for _ in range(4)]
            scale_features(self.model, pixel_values(np.concatenate(videos), self.model.device))
            align_words(self.model, self.current.extra)
            torch.manual_seed(self.settings.seed + 1)
            self.current = TextStage(self.model, self.settings)
        self.stage, self.step = _STAGES[_STAGES.index(self.stage) + 1], 0
        self.save()

    def monitor(self) -> Summary:
        """Accuracy on a few videos that are in neither the training nor the evaluation set; saves the model."""
        evaluation = evaluation_set(self.settings.monitor_videos, 8, MONITOR_SEED, MONITOR_TEXTURES)
        features = extract_features(self.model, evaluation)
        summary = summarise(score(self.model, evaluation, features))
        families = {name: round(result.accuracy, 3) for name, result in summary.families.items()}
        self.log.write(monitor=self.step, mean=round(summary.mean, 4), **families)
        export(self.model, self.out / "model")
        self.model.train()
        return summary


def main(
    out: Path,
    seed: int = 0,
    minutes: float = 0.0,
    device: str = "auto",
    threads: int = 1,
    vision_steps: int = Settings.vision_steps,
    text_steps: int = Settings.text_steps,
) -> None:
    """Train (or continue) the run in OUT; --minutes stops early and leaves a state that continues."""
    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = replace(Settings(), seed=seed, vision_steps=vision_steps, text_steps=text_steps)
    run = Run(out, settings, device=device)
    if run.train(minutes=minutes):
        export(run.model, out / "model")


if __name__ == "__main__":
    import typer

    typer.run(main)
