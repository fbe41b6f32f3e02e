"""Stage 2 of the training: the text model learns to answer from frozen visual tokens.

At first mostly the tokens of objects are kept, in the end random subsets only, so that no pruning method is at
home. See :mod:`.stages` for the settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sharpv.evaluation.packing import Phrasing, TokenisedQuestion, forward, pack, pocket_phrasing, prefix_of, tokenise
from sharpv.pocket.model import frame_features, pixel_values
from sharpv.pocket.questions import Question, ask
from sharpv.pocket.world import Episode, render, sample

from .labels import CELLS, IGNORE, MotionLabels, motion_labels
from .stages import STAGE_2, Settings, learning_rate

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration


@dataclass
class TrainingVideo:
    """What is left of a video once its features are known: ``features`` are what the stage made of its pixels."""

    features: Tensor
    labels: MotionLabels
    questions: list[TokenisedQuestion]


class VideoBuffer:
    """A sliding window over the endless sequence of training videos; video ``n`` is a function of (seed, n).

    ``encode`` makes of the pixels of a video ``(frames, 3, 112, 112)`` what is kept of it.
    """

    def __init__(self, settings: Settings, encode: Callable[[Tensor], Tensor], phrasing: Phrasing) -> None:
        self.settings, self.encode, self.phrasing = settings, encode, phrasing
        plan = np.concatenate([np.full(count, frames) for frames, count in settings.slots])
        self.frames = np.random.default_rng([settings.seed, 3]).permutation(plan)
        self.videos: list[TrainingVideo | None] = [None] * len(self.frames)
        self.numbers = np.full(len(self.frames), -1)

    def advance(self, step: int) -> None:
        """Hold exactly the videos that belong to ``step``."""
        size = len(self.frames)
        first = int(step * self.settings.fresh_per_step)
        for number in range(first, first + size):
            slot = number % size
            if self.numbers[slot] != number:
                self.videos[slot], self.numbers[slot] = self._make(number, int(self.frames[slot])), number

    @torch.no_grad()
    def _make(self, number: int, frames: int) -> TrainingVideo:
        rng = np.random.default_rng([self.settings.seed, STAGE_2, 0, number])
        episode = sample(rng, self.settings.texture_seed)
        features = self.encode(pixel_values(render(episode, frames)))
        questions = tokenise(self.questions(episode, rng, frames), self.phrasing, verdicts=True)
        return TrainingVideo(features, motion_labels(episode, frames), questions)

    def questions(self, episode: Episode, rng: np.random.Generator, frames: int) -> list[Question]:
        """What is asked about a training video."""
        return ask(episode, rng, frames, 3)

    def batch(self, rng: np.random.Generator) -> list[TrainingVideo]:
        """Random videos that all have the same number of frames."""
        frames = rng.choice(self.frames)
        slots = np.flatnonzero(self.frames == frames)
        picked = rng.choice(slots, min(self.settings.text_batch, len(slots)), replace=False)
        return [video for slot in picked if (video := self.videos[slot]) is not None]


@dataclass(frozen=True)
class Diet:
    """How often the questions of a family or form are asked (default 1) and how much their answers count."""

    use: dict[str, float]
    weight: dict[str, float]
    long_answer: int = 8
    """The tokens of longer answers count less, so that the answer as a whole counts as this many tokens."""

    def wants(self, question: TokenisedQuestion, rng: np.random.Generator) -> bool:
        """Whether to ask the question this time."""
        return bool(rng.random() < self.use.get(question.form, self.use.get(question.family, 1.0)))

    def weigh(self, question: TokenisedQuestion) -> float:
        """Weight of each token of the answer in the loss."""
        plain = min(1.0, self.long_answer / len(question.answer))
        return plain * self.weight.get(question.form, self.weight.get(question.family, 1.0))


FIRST_DIET = Diet(
    use={"scene": 0.4, "transition": 0.5, "small_dot": 0.4, "existence": 0.7, "caption": 0.5, "choice": 0.6},
    weight={},
)
LATER_DIET = Diet(
    use={
        "scene": 0.3,
        "transition": 0.4,
        "small_dot": 0.3,
        "existence": 0.5,
        "attribute": 0.6,
        "caption": 0.6,
        "choice": 0.7,
    },
    weight={
        "appearance_count": 3.0,
        "choice": 2.0,
        "camera": 1.5,
        "motion_caption": 1.5,
        "moving_attribute": 2.0,
        "moving_count": 2.0,
        "order": 2.5,
        "speed": 2.5,
        "caption": 1.5,
    },
)


def some_questions(video: TrainingVideo, rng: np.random.Generator, budget: int, diet: Diet) -> list[TokenisedQuestion]:
    """A random subset of at most ``budget`` tokens."""
    wanted = [question for question in video.questions if diet.wants(question, rng)]
    chosen: list[TokenisedQuestion] = []
    for index in rng.permutation(len(wanted)):
        if sum(map(len, chosen)) + len(wanted[index]) <= budget:
            chosen.append(wanted[index])
    return chosen or video.questions[:1]


def keep_mask(
    is_object: np.ndarray, rng: np.random.Generator, progress: float, settings: Settings
) -> tuple[np.ndarray, str]:
    """Which tokens of a batch (videos, tokens) stay in this step, and which positions they get."""
    videos, tokens = is_object.shape
    use_objects = progress < settings.object_phase or (progress < settings.random_phase and rng.random() < 0.5)
    rank = rng.random((videos, tokens))
    positions = "original"
    if use_objects:
        count = 1.05 * is_object.sum(1).mean() + tokens * rng.uniform(0.05, 0.2)
        rank += is_object
    elif rng.random() < 0.18 and tokens <= settings.max_full:
        return np.ones_like(is_object), positions
    else:
        count = tokens * rng.uniform(0.12, 0.7)
        if rng.random() < 0.5:
            rank *= np.repeat(rng.uniform(0.2, 1.7, (videos, tokens // CELLS)), CELLS, axis=1)
        if rng.random() < 0.15:
            positions = "packed"
    count = int(np.clip(count, min(settings.min_kept, tokens), min(settings.max_kept, tokens)))
    return rank.argsort(1).argsort(1) >= tokens - count, positions


class TextStage:
    """Train the text model on packed questions behind frozen visual tokens."""

    name = "text"
    middle = 3
    """The layer after which the auxiliary loss reads the visual tokens."""
    diets: ClassVar[tuple[Diet, Diet]] = (FIRST_DIET, LATER_DIET)
    """While mostly the tokens of objects are kept, and after that."""

    def __init__(self, model: LlavaOnevisionForConditionalGeneration, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.steps = settings.text_steps
        self.device = model.device
        self.phrasing = pocket_phrasing()
        self.buffer = VideoBuffer(settings, self.encode, self.phrasing)
        self.extra = nn.Linear(model.config.text_config.hidden_size, 5 + 3 + 3).to(self.device)
        frozen = (model.model.vision_tower, model.model.multi_modal_projector)
        for part in frozen:
            part.requires_grad_(False)
        trained = [p for p in model.parameters() if p.requires_grad]
        self.parameters = [*trained, *self.extra.parameters()]
        groups = [
            {"params": [p for p in self.parameters if p.dim() == 2], "weight_decay": 0.05},
            {"params": [p for p in self.parameters if p.dim() != 2], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.text_rate, betas=(0.9, 0.98))

    def encode(self, pixels: Tensor) -> Tensor:
        """What is kept of a training video: here its visual tokens, (tokens, hidden)."""
        return frame_features(self.model, pixels.to(self.device)).flatten(0, 1).half()

    def visual_tokens(self, videos: list[TrainingVideo]) -> Tensor:
        """The visual tokens of a batch, (videos, tokens, hidden), from what was kept of them."""
        return torch.stack([video.features for video in videos]).float()

    def rate(self, step: int) -> float:
        return learning_rate(self.settings.text_rate, step, self.steps, 80, self.settings.decay_from)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([self.settings.seed, STAGE_2, 1, step])
        self.buffer.advance(step)
        videos = self.buffer.batch(rng)
        diet = self.diets[step >= self.settings.object_phase * self.steps]
        asked_of = [some_questions(video, rng, self.settings.text_budget, diet) for video in videos]
        packed = pack(asked_of, diet.weigh, hints=diet is self.diets[1]).to(self.device)
        is_object = np.stack([video.labels.is_object for video in videos])
        kept, positions = keep_mask(is_object, rng, step / self.steps, self.settings)
        keep = torch.from_numpy(kept).to(self.device)
        head = len(self.phrasing.head)
        prefix = prefix_of(self.visual_tokens(videos), keep, positions, head)
        hidden, layers = forward(self.model, prefix, packed, hidden_states=True, phrasing=self.phrasing)
        assert layers is not None

        asked = packed.target != IGNORE
        logits, target = self.model.lm_head(hidden[asked]).float(), packed.target[asked]
        each = functional.cross_entropy(logits, target, label_smoothing=0.02, reduction="none")
        weight = packed.weight[asked]
        answers = (each * weight).sum() / weight.sum()
        middle = layers[min(self.middle, len(layers) - 1)][:, head : head + keep[0].sum()]
        motion, right = self._motion_loss(middle, videos, keep)
        facts = {
            "loss": float(answers.detach()),
            "token_accuracy": float((logits.argmax(-1) == target).float().mean()),
            "motion_loss": float(motion.detach()),
            "motion_accuracy": right,
            "frames": keep.shape[1] / CELLS,
            "kept": float(keep[0].sum()),
        }
        return answers + self.settings.motion_weight * motion, facts

    def _motion_loss(self, middle: Tensor, videos: list[TrainingVideo], keep: Tensor) -> tuple[Tensor, float]:
        """The auxiliary loss: a visual token knows after three layers how its object moves and what is new."""
        logits = self.extra(middle.float())

        def kept(name: str) -> Tensor:
            labels = np.stack([getattr(video.labels, name) for video in videos])
            return torch.from_numpy(labels).to(self.device)[keep].view(len(videos), -1)

        total = logits.new_zeros(())
        parts = zip(
            logits.split((5, 3, 3), -1),
            ("velocity", "novelty", "speed"),
            ((1, 1, 1, 1, 0.4), (0.15, 1, 1), (1, 1, 1)),
            (0.5, 0.25, 0.25),
            strict=True,
        )
        for guess, name, weights, share in parts:
            target = kept(name)
            if (target != IGNORE).any():
                class_weight = torch.tensor(weights, dtype=torch.float32, device=self.device)
                total = total + share * functional.cross_entropy(guess.transpose(1, 2), target, class_weight)
        velocity = kept("velocity")
        moving = (velocity != IGNORE) & (velocity < 4)
        return total, float((logits[..., :5].argmax(-1) == velocity)[moving].float().mean())
