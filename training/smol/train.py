"""Train the smol model: ``python -m training.smol.train DIR --seed 0``.

Pocket's tower is frozen. The projector starts from a ridge regression on what its tokens show; it and LoRA deltas learn
from pocket's videos in two stages. In the first the words are grounded: one to four frames, mostly the tokens of
objects, and listings of what is seen beside pocket's questions. In the second come motion and all forms of question,
listings, short answers, multiple choice, sentences and captions, with pocket's auxiliary loss on motion, and in its
last phase random keep sets only. What SmolLM2 says to prompts without a video is held to what it said before, and in
the end the deltas are set apart from such prompts (:mod:`.apart`).

The budget is in steps, so the result depends on the seed and not on the machine; a run that was killed continues from
``DIR/state.pt``. ``DIR/deltas.safetensors`` is what the package ships.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration

from sharpv import pocket
from sharpv.evaluation.scoring import evaluation_set, extract_features, score, summarise
from sharpv_smol.language import load_tokenizer, phrasing
from sharpv_smol.model import add_lora, build, deltas, load_deltas, quicken, without_lora

from ..pocket.running import MONITOR_SEED, MONITOR_TEXTURES, TrainingRun
from ..pocket.stages import Settings as PocketSettings
from ..pocket.text_stage import FIRST_DIET, Diet, TextStage, TrainingVideo, VideoBuffer
from .apart import second_moments, set_apart
from .asked import SPEAKING_DIET, ListingBuffer, SentenceBuffer
from .prompts import EVALUATION
from .replies import Replies
from .start import projected, start_projector, tower_states


@dataclass(frozen=True)
class Settings(PocketSettings):
    """Everything that a training run depends on; what is not here is pocket's."""

    grounding_steps: int = 250
    grounding_batch: int = 4
    grounding_slots: tuple[tuple[int, int], ...] = ((1, 28), (2, 28), (4, 28))
    text_steps: int = 800
    text_batch: int = 3
    text_rate: float = 1e-3
    fresh_per_step: float = 1.5
    slots: tuple[tuple[int, int], ...] = ((8, 44), (4, 24), (12, 6), (16, 6), (32, 4))
    object_phase: float = 0.3
    random_phase: float = 0.6
    text_budget: int = 340
    max_kept: int = 220
    max_full: int = 400
    decay_from: float = 0.45
    monitor_videos: int = 40
    projector_rate: float = 0.1
    """The projector's learning rate, of that of the rest. At 1.0 it raised what a token is called to seven times the
    norm of a word, and where it stands was lost beside it."""
    motion_weight: float = 0.5
    reply_every: int = 2
    """Every so many steps what the model says without a video is held to what it said before ..."""
    reply_batch: int = 6
    """... on so many conversations ..."""
    reply_weight: float = 8.0
    """... with this weight in the loss."""
    apart: float = 0.5
    """At the end the deltas are set apart from text, whose weight this is beside that of videos ..."""
    apart_steps: int = 60
    """... as so many steps show them ..."""
    apart_replies: int = 600
    """... and so many conversations without one."""
    fast: bool = False
    """The language model in bfloat16, its layers compiled: for GPUs, and processors that multiply in bfloat16."""


class SmolStage(TextStage):
    """Pocket's text stage with a projector that learns and LoRA on the language model."""

    name = "speaking"
    middle = 10
    diets: ClassVar[tuple[Diet, Diet]] = (FIRST_DIET, SPEAKING_DIET)
    settings: Settings
    buffer_type: ClassVar[type[VideoBuffer]] = SentenceBuffer

    def __init__(self, model: LlavaOnevisionForConditionalGeneration, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.steps = settings.text_steps
        self.device = model.device
        self.phrasing = phrasing()
        self.buffer = self.buffer_type(settings, self.encode, self.phrasing)
        self.extra = nn.Linear(model.config.text_config.hidden_size, 5 + 3 + 3).to(self.device)
        model.model.vision_tower.requires_grad_(False)
        model.lm_head.requires_grad_(False)
        seeing = [*model.model.multi_modal_projector.parameters(), model.model.image_newline]
        reading = [p for p in model.model.language_model.parameters() if p.requires_grad]
        self.parameters = [*reading, *self.extra.parameters(), *seeing]
        groups: list[dict[str, Any]] = [
            {"params": [*reading, *self.extra.parameters()]},
            {"params": seeing, "scale": settings.projector_rate},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.text_rate, betas=(0.9, 0.98), weight_decay=0.0)

    def encode(self, pixels: Tensor) -> Tensor:
        return tower_states(self.model, pixels.to(self.device)).half()

    def visual_tokens(self, videos: list[TrainingVideo]) -> Tensor:
        states = torch.cat([video.features.float() for video in videos])
        return projected(self.model, states).reshape(len(videos), -1, self.model.config.text_config.hidden_size)


class GroundingStage(SmolStage):
    """The first stage: few frames, the tokens of objects, listings."""

    name = "grounding"
    buffer_type = ListingBuffer

    def __init__(self, model: LlavaOnevisionForConditionalGeneration, settings: Settings) -> None:
        own = replace(
            settings,
            text_steps=settings.grounding_steps,
            text_batch=settings.grounding_batch,
            slots=settings.grounding_slots,
            min_kept=8,
            object_phase=1.0,
        )
        super().__init__(model, own)


class Run(TrainingRun):
    """Smol's: projector and LoRA, in two stages."""

    log_every, save_every, monitor_every = 10, 50, 500
    settings: Settings

    def __init__(self, out: Path, settings: Settings, device: str = "cpu", start: Path | None = None) -> None:
        super().__init__(out, settings)
        self.words = load_tokenizer()
        torch.manual_seed(settings.seed)
        self.model = build(pocket.load()[0])
        begun = self.state_path.exists()
        if not begun and start is None:
            self.log.write(
                ridge_r2=round(start_projector(self.model, self.words, settings.seed, settings.texture_seed), 3)
            )
        add_lora(self.model)
        if not begun and start is not None:
            load_deltas(self.model, load_file(start))
            self.log.write(start=start.name)
        self.model.to(device)
        if settings.fast:
            quicken(self.model)
        self.current: SmolStage = GroundingStage(self.model, settings)
        self.replies = Replies(out / "replies.json", self.words, settings.seed, settings.fast)
        if begun:
            self.resume()
        else:
            with without_lora(self.model):
                self.log.write(reply_loss_before=round(self.reply_loss(), 4))

    def learned(self) -> dict[str, Any]:
        trained = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        return {"stage": self.current.name, "trained": trained}

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["trained"], strict=False)
        if state["stage"] == SmolStage.name:
            self.current = SmolStage(self.model, self.settings)

    def next_stage(self) -> bool:
        if not isinstance(self.current, GroundingStage):
            return False
        torch.manual_seed(self.settings.seed + 1)
        self.current, self.step = SmolStage(self.model, self.settings), 0
        self.save()
        return True

    def train(self, minutes: float = 0) -> bool:
        ended = super().train(minutes)
        if ended:
            self.set_apart()
            self.monitor()
        return ended

    @torch.no_grad()
    def set_apart(self) -> None:
        """Take from text what was learned for videos; see :mod:`.apart`. The state on disk stays as it was learned."""
        self.model.eval()
        with second_moments(self.model) as video:
            for step in range(self.current.steps, self.current.steps + self.settings.apart_steps):
                self.current.loss(step)
        # text as it is without deltas, since it will be again once they leave it alone
        with without_lora(self.model), second_moments(self.model) as text:
            self.replies.read(self.model, self.settings.apart_replies)
        set_apart(self.model, video, text, self.settings.apart)
        self.log.write(apart=self.settings.apart)

    def besides(self) -> dict[str, float]:
        if self.step % self.settings.reply_every:
            return {}
        rng = np.random.default_rng([self.settings.seed, 7, self.step])
        drift = self.replies.drift(self.model, rng, self.settings.reply_batch)
        (self.current.settings.reply_weight * drift).backward()
        return {"drift": float(drift.detach())}

    @torch.no_grad()
    def reply_loss(self) -> float:
        """Loss on the replies to the prompts that are never trained on."""
        self.model.eval()
        losses = [
            float(self.replies.loss(self.model, list(EVALUATION[i : i + 12]))) for i in range(0, len(EVALUATION), 12)
        ]
        self.model.train()
        return float(np.mean(losses))

    @torch.no_grad()
    def monitor(self) -> None:
        evaluation = evaluation_set(self.settings.monitor_videos, 8, MONITOR_SEED, MONITOR_TEXTURES)
        features = extract_features(self.model, evaluation)
        summary = summarise(score(self.model, evaluation, features, batch=4, phrasing=phrasing()))
        families: dict[str, Any] = {name: round(result.accuracy, 3) for name, result in summary.families.items()}
        self.log.write(
            monitor=self.step, mean=round(summary.mean, 4), reply_loss=round(self.reply_loss(), 4), **families
        )
        self.export()
        self.model.train()

    def export(self) -> None:
        """Write what the package ships."""
        fresh = self.out / "deltas.tmp"
        save_file(deltas(self.model), fresh)
        fresh.replace(self.out / "deltas.safetensors")


def main(
    out: Path,
    seed: int = 0,
    minutes: Annotated[float, typer.Option(help="Stop after so long and leave a state that continues.")] = 0.0,
    device: str = "auto",
    threads: int = 2,
    grounding_steps: int = Settings.grounding_steps,
    text_steps: int = Settings.text_steps,
    start: Annotated[
        Path | None,
        typer.Option(help="Go on from such deltas, past the phase of objects.", exists=True, dir_okay=False),
    ] = None,
    fast: Annotated[bool, typer.Option(help="bfloat16 and compiled: needs hardware for the one, a compiler.")] = False,
) -> None:
    """Train (or continue) the run in OUT."""
    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = Settings(seed=seed, grounding_steps=grounding_steps, text_steps=text_steps, fast=fast)
    if start is not None:
        settings = replace(settings, object_phase=0.0)
    run = Run(out, settings, device, start)
    run.train(minutes=minutes)


if __name__ == "__main__":
    typer.run(main)
