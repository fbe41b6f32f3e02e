"""A prompt is pruned: ids, masks, token types, labels, positions (:mod:`.columns`) and encoder outputs, together.

A pruned prompt is an ordinary, shorter one. Each surviving token keeps the position it had in the full prompt (or all
are numbered anew, ``positions="packed"``); a batch whose samples keep different numbers is padded again on the left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .budget import Budget
from .columns import full_positions, kept_columns, shorten
from .criteria import Criterion
from .encoded import join_samples, keep_rows, separate
from .methods import InnerMethod, Method
from .methods.base import refuse_non_finite
from .models import Family, Layout
from .models.base import RAW_PIXELS
from .models.layout import first_true
from .vision import Encoding, encode_videos


@dataclass(frozen=True)
class Settings:
    """What :func:`sharpv.apply` was asked for."""

    method: Method
    budget: Budget
    memory: Criterion | None
    positions: Literal["original", "packed"]
    encoding: Encoding

    @property
    def inside(self) -> bool:
        """Whether something happens inside the language model: its cache must be one that can forget."""
        return self.memory is not None or isinstance(self.method, InnerMethod)


@dataclass(frozen=True)
class PrunedVideo:
    """One video after pruning.

    Attributes:
        sample: its sample in the batch.
        layout: how its rows lay before.
        kept_per_frame: kept patches of each frame.
        rows: ``(n, D)`` the feature rows that the language model reads, those that are no patches included.
        keep: ``(T, N)`` bool, the keep mask.
        encoded: frames that the tower was run on.
    """

    sample: int
    layout: Layout
    kept_per_frame: list[int]
    rows: Tensor
    keep: Tensor
    encoded: int

    @property
    def features(self) -> Tensor:
        """The surviving patches, ``(kept, D)``."""
        kept = self.layout.spread(self.keep, others=True)
        patches = self.layout.spread(torch.ones_like(self.keep), others=False)
        return self.rows[patches[kept]]


@dataclass(frozen=True)
class PrunedPrompt:
    """A full prompt and what is left of it; travels on the cache so that later turns can be pruned alike.

    Attributes:
        ids: ``(B, L)`` the full prompt.
        keep: ``(B, L)`` bool, the columns that survive (padding does not).
        inputs: the shorter prompt, as keyword arguments of ``forward`` and ``generate``, without the encoder outputs.
        visual: ``(B, N)`` bool, the surviving patches of videos in the shorter prompt.
        videos: one entry per video, in prompt order.
    """

    ids: Tensor
    keep: Tensor
    inputs: dict[str, Tensor]
    visual: Tensor
    videos: list[PrunedVideo]

    @property
    def removed(self) -> int:
        """Columns that the shorter prompt lacks."""
        return self.ids.shape[1] - self.visual.shape[1]

    def positions_after(self, mask: Tensor, repeats: int = 1) -> Tensor:
        """Positions of the shorter prompt and of the text after it, ``(..., B, N + new)``.

        ``mask`` ``(B * repeats, new)`` says which of the new tokens are real: padding does not count.
        """
        positions = self.inputs["position_ids"].repeat_interleave(repeats, dim=-2)
        return torch.cat([positions, positions[..., -1:] + mask.long().cumsum(-1)], dim=-1)


def prune(
    model: PreTrainedModel, family: Family, settings: Settings, inputs: Mapping[str, Any]
) -> tuple[dict[str, Any], PrunedPrompt]:
    """Run the vision side, choose what to keep, and write the shorter prompt. One host synchronisation.

    Args:
        inputs: what the processor made, with ``input_ids`` ``(B, L)`` and a video's pixels; anything that is not about
            the prompt is handed through.

    Returns:
        Keyword arguments for the model's own ``forward`` or ``generate`` and the :class:`PrunedPrompt`. Video features
        come as a list with one tensor per sample that has any.

    Raises:
        ValueError: no ``input_ids``, placeholders that do not match the features, features that are not finite, images
            beside videos where the model cannot tell their placeholders apart.
    """
    ids = inputs.get("input_ids")
    if ids is None:
        raise ValueError("sharpv finds the video by its placeholders: pass input_ids, not inputs_embeds")
    mask = inputs.get("attention_mask")
    if mask is not None and mask.shape != ids.shape:
        raise ValueError(f"attention_mask must be {tuple(ids.shape)}, as input_ids, got {tuple(mask.shape)}")
    if not family.images_beside and inputs.get(RAW_PIXELS["image"]) is not None:
        raise ValueError(f"{family.name} has one placeholder for both: pass images and videos in separate batches")
    encoded, sources = _encode(model, family, settings.encoding, inputs)
    output = encoded[family.modality]
    rows_made = sum(rows.shape[:-1].numel() for rows in output.pooler_output)
    layouts = family.layouts(model, inputs, rows_made)
    separate(output, layouts)
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    placeholder = ids == getattr(model.config, family.placeholder)
    methods = [settings.method] * len(layouts)
    if settings.method.needs_question:
        # which sample a video belongs to is another host synchronisation
        samples = _samples(placeholder.sum(1).tolist(), layouts)
        questions = _questions(model, ids, real, placeholder)
        methods = [settings.method.about(questions[sample]) for sample in samples]
    choices = [
        _choose(method, settings.budget, layout, rows)
        for method, layout, rows in zip(methods, layouts, output.pooler_output, strict=True)
    ]
    if settings.method.merges(family.positions):
        output.pooler_output = [
            choice.layout.replaced(rows, choice.merged) if choice.merged is not None else rows
            for choice, rows in zip(choices, output.pooler_output, strict=True)
        ]

    # 1. which columns of the prompt survive
    kept_rows = torch.cat([choice.kept_rows for choice in choices]).to(ids.device)
    patch_rows = torch.cat([choice.patch_rows for choice in choices]).to(ids.device)
    # the n-th placeholder of the batch stands for the n-th row
    row = (placeholder.flatten().cumsum(0) - 1).clamp(0, len(kept_rows) - 1).view_as(ids)
    keep = real & (kept_rows[row] | ~placeholder)
    patches = patch_rows[row] & placeholder

    # 2. the one host synchronisation: how much is left, of each sample and of each frame, and whether all is sound
    counted = [keep.sum(1), placeholder.sum(1), torch.stack([choice.sound for choice in choices])]
    counted += [choice.keep.sum(1) for choice in choices]
    host = torch.cat([part.to(ids.device).long() for part in counted]).tolist()
    ends = accumulate((len(part) for part in counted), initial=0)
    kept, placeholders, sound, *kept_per_frame = [host[start:end] for start, end in pairwise(ends)]
    if sum(placeholders) != len(kept_rows):
        raise ValueError(
            f"the prompt has {sum(placeholders)} video placeholder tokens, but the videos have {len(kept_rows)} "
            "features: pass the text and the videos through the processor together"
        )
    if not all(sound):
        index = sound.index(0)
        refuse_non_finite(choices[index].features, f"video {index}")

    # 3. the shorter prompt
    positions = full_positions(model, family, ids, real, inputs)
    shorter = shorten(model, inputs, keep, positions, width=max(kept), packed=settings.positions == "packed")
    visual = (patches & keep).gather(1, kept_columns(keep, max(kept)))

    # 4. the shorter encoder outputs
    samples = _samples(placeholders, [choice.layout for choice in choices])
    picks = [choice.pick(sum(counts)) for choice, counts in zip(choices, kept_per_frame, strict=True)]
    keep_rows(output, picks)
    frames = (len(set(source)) for source in sources) if sources else (layout.frames for layout in layouts)
    videos = [
        PrunedVideo(sample, choice.layout, counts, rows, choice.keep, count)
        for choice, sample, counts, rows, count in zip(
            choices, samples, kept_per_frame, output.pooler_output, frames, strict=True
        )
        if choice.layout.frames
    ]
    join_samples(output, samples)
    encoded[family.handed_as] = encoded.pop(family.modality)
    consumed = {*shorter, *vision_inputs(model, family)}
    passed = {name: value for name, value in inputs.items() if name not in consumed}
    return {**passed, **shorter, "mm_encoder_outputs": encoded}, PrunedPrompt(ids, keep, shorter, visual, videos)


def vision_inputs(model: PreTrainedModel, family: Family) -> set[str]:
    """Names of the inputs that only the vision side and the positions read."""
    names = {*family.input_names, *(f"{modality}_grid_thw" for modality in RAW_PIXELS)}
    return names.union(*(family.encoder_inputs(model, modality).values() for modality in family.encoders))


@dataclass(frozen=True)
class _Choice:
    """One video while it is being pruned."""

    layout: Layout
    features: Tensor
    keep: Tensor
    sound: Tensor
    """Whether all is finite, unread."""
    merged: Tensor | None = None
    """What the survivors carry instead, ``(T, N, D)``."""

    @property
    def kept_rows(self) -> Tensor:
        """``(placeholders,)`` bool, the rows that stay; what is no patch always does."""
        return self.layout.of_placeholders(self.layout.spread(self.keep, others=True))

    @property
    def patch_rows(self) -> Tensor:
        """``(placeholders,)`` bool, the rows that are patches."""
        return self.layout.of_placeholders(self.layout.spread(torch.ones_like(self.keep), others=False))

    def pick(self, kept: int) -> Tensor:
        """Indices of the encoder's rows that stay, in order, given how many patches do."""
        return first_true(self.layout.spread(self.keep, others=True), kept + self.layout.others)


def _encode(
    model: PreTrainedModel, family: Family, encoding: Encoding, inputs: Mapping[str, Any]
) -> tuple[dict[str, Any], list[list[int]]]:
    """The encoders' outputs by modality, and where each video's frames came from if that is not the model's own way."""
    there = [name for name in family.encoders if inputs.get(RAW_PIXELS[name]) is not None]
    sources: list[list[int]] = []
    outputs = {name: family.encode(model, name, inputs) for name in there if encoding.stock or name != family.modality}
    if not encoding.stock:
        outputs[family.modality], sources = encode_videos(model, family, encoding, inputs)
    return outputs, sources


def _questions(model: PreTrainedModel, ids: Tensor, real: Tensor, placeholder: Tensor) -> Tensor:
    """Mean embedding of each sample's text after its last placeholder, ``(B, D)``; of all its text if there is none."""
    after = real & ~placeholder & (placeholder.flip(1).cumsum(1).flip(1) == 0)
    text = torch.where(after.any(1, keepdim=True), after, real & ~placeholder)
    embedded = model.get_input_embeddings()(ids.where(text, 0))
    return embedded.masked_fill(~text[..., None], 0.0).sum(1) / text.sum(1, keepdim=True).clamp(min=1)


def _choose(method: Method, budget: Budget, layout: Layout, rows: Tensor) -> _Choice:
    features = layout.split(rows)
    if not layout.frames:  # still images
        nothing = torch.ones(0, 0, dtype=torch.bool, device=rows.device)
        return _Choice(layout, features, nothing, nothing.all())
    method.check(features, budget)
    selection = method.pick(features, budget, layout.present)
    return _Choice(layout, features, selection.keep, method.is_sound(features, selection.scores), selection.features)


def _samples(placeholders: list[int], layouts: list[Layout]) -> list[int]:
    """The sample of each video: videos fill the samples' placeholders in order."""
    samples, sample, room = [], -1, 0
    for layout in layouts:
        while room <= 0 and sample + 1 < len(placeholders):
            sample += 1
            room = placeholders[sample]
        samples.append(sample)
        room -= layout.patches + layout.others
    return samples
