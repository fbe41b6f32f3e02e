"""Train the pocket model from scratch: ``python -m training.pocket.train DIR --seed 0``.

The budget is in steps (three hours of one CPU thread), so the result depends on the seed and not on the machine's
speed. A run that was killed continues from ``DIR/state.pt`` when started again. ``DIR/log.jsonl`` has one record every
few steps; ``DIR/model`` is the checkpoint that the Auto classes load. The shipped model is seed 1.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sharpv.evaluation.scoring import evaluation_set, extract_features, score, summarise
from sharpv.pocket.model import DEFAULT_SIZE, PocketSize, build_model, export, pixel_values, scale_features
from sharpv.pocket.world import render, sample

from .running import MONITOR_SEED, MONITOR_TEXTURES, TrainingRun
from .stages import Settings, VisionStage, align_words
from .text_stage import TextStage

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration


class Run(TrainingRun):
    """Pocket's: the tower first, then the text model."""

    log_every, save_every, monitor_every = 50, 200, 400

    def __init__(self, out: Path, settings: Settings, size: PocketSize = DEFAULT_SIZE, device: str = "cpu") -> None:
        super().__init__(out, settings)
        torch.manual_seed(settings.seed)
        self.model: LlavaOnevisionForConditionalGeneration = build_model(size).to(device)
        self.current: VisionStage | TextStage = VisionStage(self.model, settings)
        if self.state_path.exists():
            self.resume()

    def learned(self) -> dict[str, Any]:
        return {"stage": self.current.name, "model": self.model.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if state["stage"] != VisionStage.name:
            self.current = TextStage(self.model, self.settings)

    def next_stage(self) -> bool:
        if isinstance(self.current, TextStage):
            self.save()
            return False
        rng = np.random.default_rng([self.settings.seed, 5])
        videos = [render(sample(rng, self.settings.texture_seed), 8) for _ in range(4)]
        scale_features(self.model, pixel_values(np.concatenate(videos), self.model.device))
        align_words(self.model, self.current.extra)
        torch.manual_seed(self.settings.seed + 1)
        self.current, self.step = TextStage(self.model, self.settings), 0
        self.save()
        return True

    def monitor(self) -> None:
        evaluation = evaluation_set(self.settings.monitor_videos, 8, MONITOR_SEED, MONITOR_TEXTURES)
        features = extract_features(self.model, evaluation)
        summary = summarise(score(self.model, evaluation, features))
        families = {name: round(result.accuracy, 3) for name, result in summary.families.items()}
        self.log.write(monitor=self.step, mean=round(summary.mean, 4), **families)
        export(self.model, self.out / "model")
        self.model.train()


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
