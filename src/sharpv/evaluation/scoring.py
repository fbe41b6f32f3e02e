"""The fixed evaluation: how often the pocket model's greedy answer is the true answer, word for word.

All questions of a video are packed behind one visual prefix (see :mod:`.packing`) and scored with the true
answer fed back; the answer is correct if every token is the most likely one, which is the case exactly when
greedy generation gives that answer. ``python -m sharpv.evaluation.scoring`` prints the table of the full model
and checks that claim against ``model.generate``.

>>> evaluation = evaluation_set(videos=100)
>>> features = extract_features(model, evaluation)             # (100, 8, 49, 128)
>>> keep = torch.rand(features.shape[:3]) < 0.25
>>> summarise(score(model, evaluation, features, keep)).mean
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..pocket.model import frame_features, pixel_values
from ..pocket.questions import Question, ask
from ..pocket.world import Episode, render, sample
from .packing import IGNORE, Phrasing, forward, pack, pocket_phrasing, prefix_of, tokenise

if TYPE_CHECKING:
    from transformers import BatchFeature, LlavaOnevisionForConditionalGeneration, ProcessorMixin

EVALUATION_SEED = 4242
EVALUATION_TEXTURES = 778
"""A bank of background textures that no training run uses."""


@dataclass(frozen=True)
class EvaluationSet:
    """Episodes and their questions; videos are rendered on demand."""

    frames: int
    episodes: list[Episode]
    questions: list[list[Question]]

    def __len__(self) -> int:
        return len(self.episodes)

    def video(self, index: int) -> np.ndarray:
        """uint8 (frames, 112, 112, 3)."""
        return render(self.episodes[index], self.frames)


def evaluation_set(
    videos: int = 1000,
    frames: int = 8,
    seed: int = EVALUATION_SEED,
    texture_seed: int = EVALUATION_TEXTURES,
) -> EvaluationSet:
    """The first ``videos`` videos of the fixed evaluation; video n is the same for any number of videos."""
    episodes, questions = [], []
    for index in range(videos):
        rng = np.random.default_rng([seed, 4, index])
        episodes.append(sample(rng, texture_seed))
        questions.append(ask(episodes[-1], rng, frames))
    return EvaluationSet(frames, episodes, questions)


@torch.no_grad()
def extract_features(model: LlavaOnevisionForConditionalGeneration, evaluation: EvaluationSet) -> Tensor:
    """Visual tokens as the text model gets them, (videos, frames, 49, hidden)."""
    return torch.stack(
        [
            frame_features(model, pixel_values(evaluation.video(index), model.device).to(model.dtype))
            for index in range(len(evaluation))
        ]
    )


@dataclass(frozen=True)
class Record:
    """The outcome of one question."""

    video: int
    family: str
    form: str
    correct: bool
    tokens_correct: int
    tokens: int
    answer: str


@torch.no_grad()
def score(
    model: LlavaOnevisionForConditionalGeneration,
    evaluation: EvaluationSet,
    features: Tensor,
    keep: Tensor | None = None,
    positions: str = "original",
    batch: int = 10,
    phrasing: Phrasing | None = None,
) -> list[Record]:
    """Ask every question, keeping the visual tokens of the mask ``keep``, bool (videos, frames, 49); None: all.

    ``positions``: "original" leaves the kept tokens at their places in the full prompt, "packed" closes the gaps.
    ``features`` may be changed by the caller (zeros make a blind model).
    """
    if keep is None:
        keep = torch.ones(features.shape[:3], dtype=torch.bool, device=features.device)
    if keep.shape != features.shape[:3] or keep.dtype != torch.bool:
        raise ValueError(f"keep must be bool {tuple(features.shape[:3])}, got {keep.dtype} {tuple(keep.shape)}")
    model.eval()
    phrasing = phrasing or pocket_phrasing()
    asked_of = [tokenise(questions, phrasing) for questions in evaluation.questions]
    # videos with about as much to ask go together: what is padded is run too
    order = np.argsort([sum(map(len, questions)) for questions in asked_of], kind="stable")
    of_video: dict[int, list[Record]] = {}
    for start in range(0, len(order), batch):
        part = order[start : start + batch].tolist()
        packed = pack([asked_of[index] for index in part]).to(features.device)
        prefix = prefix_of(features[part].flatten(1, 2), keep[part].flatten(1), positions, len(phrasing.head))
        hidden, _ = forward(model, prefix, packed, phrasing=phrasing)
        asked = packed.target != IGNORE
        logits = model.lm_head(hidden[asked])
        suppressed = getattr(model.generation_config, "suppress_tokens", None)
        if suppressed:
            logits[..., suppressed] = -torch.inf
        right = torch.zeros_like(asked).masked_scatter(asked, logits.argmax(-1) == packed.target[asked]).cpu()
        block, asked = packed.block.cpu(), asked.cpu()
        for row, index in enumerate(part):
            hits = [right[row][(block[row] == n) & asked[row]] for n in range(len(asked_of[index]))]
            of_video[index] = [
                Record(index, q.family, q.form, bool(own.all()), int(own.sum()), len(own), q.answer)
                for q, own in zip(evaluation.questions[index], hits, strict=True)
            ]
    return [record for index in range(len(order)) for record in of_video[index]]


@dataclass(frozen=True)
class FamilyResult:
    """Accuracy of a family beside that of always giving its most frequent answer."""

    questions: int
    accuracy: float
    majority: float
    token_accuracy: float


@dataclass(frozen=True)
class Summary:
    """Results by family; multiple-choice questions of all families are a family of their own."""

    families: dict[str, FamilyResult]

    @property
    def mean(self) -> float:
        """Accuracy averaged over the families."""
        return sum(result.accuracy for result in self.families.values()) / len(self.families)

    @property
    def majority(self) -> float:
        """The majority-answer baseline averaged over the families."""
        return sum(result.majority for result in self.families.values()) / len(self.families)


def summarise(records: Sequence[Record]) -> Summary:
    """Accuracy by family."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups["multiple_choice" if record.form == "choice" else record.family].append(record)
    families = {}
    for name, group in sorted(groups.items()):
        count = len(group)
        most = Counter(record.answer for record in group).most_common(1)[0][1]
        families[name] = FamilyResult(
            questions=count,
            accuracy=sum(record.correct for record in group) / count,
            majority=most / count,
            token_accuracy=sum(r.tokens_correct for r in group) / sum(r.tokens for r in group),
        )
    return Summary(families)


def prompt_inputs(processor: ProcessorMixin, video: np.ndarray, prompt: str) -> BatchFeature:
    """One question about one video through chat template and processor."""
    content = [{"type": "video"}, {"type": "text", "text": prompt}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs: BatchFeature = processor(text=text, videos=[list(video)], return_tensors="pt")
    return inputs


@torch.no_grad()
def generated_answer(
    model: LlavaOnevisionForConditionalGeneration, processor: ProcessorMixin, video: np.ndarray, prompt: str
) -> str:
    """Ask one question the ordinary way: chat template, processor, ``model.generate``."""
    inputs = prompt_inputs(processor, video, prompt).to(model.device, model.dtype)
    output = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
    return str(processor.decode(output, skip_special_tokens=True))


def generation_agrees(
    model: LlavaOnevisionForConditionalGeneration,
    processor: ProcessorMixin,
    evaluation: EvaluationSet,
    records: Sequence[Record],
    limit: int,
) -> tuple[int, int]:
    """Of the first ``limit`` questions, for how many ``generate`` is right exactly when the packed score is."""
    asked = [(i, question) for i, of_video in enumerate(evaluation.questions) for question in of_video]
    agree = 0
    for (index, question), record in list(zip(asked, records, strict=True))[:limit]:
        answer = generated_answer(model, processor, evaluation.video(index), question.prompt)
        agree += (answer == question.answer) == record.correct
    return agree, min(limit, len(asked))


def main(model: str | None = None, videos: int = 1000, frames: int = 8, check: int = 48, threads: int = 0) -> None:
    """Print the table of the full model, kept at random to 25 %, and blind; then the check against generate."""
    from rich.console import Console
    from rich.table import Table

    from ..pocket import load

    if threads:
        torch.set_num_threads(threads)
    network, processor = load(directory=model)
    evaluation = evaluation_set(videos, frames)
    features = extract_features(network, evaluation)
    order = torch.rand(features.shape[:3], generator=torch.Generator().manual_seed(0)).flatten(1).argsort(1).argsort(1)
    quarter = (order < order.shape[1] // 4).view(features.shape[:3])
    dense = score(network, evaluation, features)
    columns = {
        "random 25 %": summarise(score(network, evaluation, features, quarter)),
        "blind": summarise(score(network, evaluation, torch.zeros_like(features))),
    }
    summary = summarise(dense)
    table = Table(title=f"pocket: {videos} videos, {frames} frames, exact match")
    for heading in ("family", "questions", "all tokens", "of its tokens", *columns, "majority answer"):
        table.add_column(heading, justify="left" if heading == "family" else "right")
    for name, result in summary.families.items():
        others = [f"{column.families[name].accuracy:.3f}" for column in columns.values()]
        own = (f"{result.accuracy:.3f}", f"{result.token_accuracy:.3f}")
        table.add_row(name, str(result.questions), *own, *others, f"{result.majority:.3f}")
    means = [f"{column.mean:.3f}" for column in columns.values()]
    table.add_section()
    table.add_row("mean", str(len(dense)), f"{summary.mean:.3f}", "", *means, f"{summary.majority:.3f}")
    console = Console()
    console.print(table)
    agree, asked = generation_agrees(network, processor, evaluation, dense, check)
    console.print(f"generate agrees with the packed score on {agree} of {asked} questions")


if __name__ == "__main__":
    import typer

    typer.run(main)
