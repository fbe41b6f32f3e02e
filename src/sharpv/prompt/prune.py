"""A prompt is pruned: a chain of values, nothing edited in place.

    encode      pixels -> the features of each video, as they lie           (sharpv.vision.encoding)
    choose      features -> which patches of each frame stay                (sharpv.methods)
    lay out     patches -> which columns of the prompt stay
    read        how many that is: the one host synchronisation
    shorten     ids, mask, token types, labels, positions                   (.columns)
    hand over   the features that are left, as the model's own forward reads them

A pruned prompt is an ordinary, shorter one. Each surviving token keeps the position it had in the full prompt (or all
are numbered anew, ``positions="packed"``); a batch whose samples keep different numbers is padded again on the left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..config import Config
from ..kvcache.masks import kept_columns
from ..methods import Method, Selection
from ..methods.base import refuse_non_finite
from ..methods.importance import nearly_repeat
from ..models import Family, Layout
from ..models.base import RAW_PIXELS, pixel_inputs
from ..models.layout import first_true
from ..vision.encoded import Encoded
from ..vision.encoding import encode
from .columns import full_positions, last_position, shorten
from .pruned import PrunedPrompt, PrunedVideo


def prune(
    model: PreTrainedModel, family: Family, config: Config, inputs: Mapping[str, Any]
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
    inputs = family.own_names(inputs)
    seen = vision_inputs(model, family)
    refuse_unread(family, seen, inputs)
    prompt = _Prompt.of(model, family, inputs)
    videos, beside = encode(model, family, config.encoding, config.budget, inputs)
    chosen = _choose(model, family, config, prompt, videos)
    columns = _lay_out(prompt, videos.layouts, chosen)
    read = _read(prompt, columns, videos, chosen)
    if read.others and not beside:
        raise ValueError(
            f"the prompt has {read.others} image placeholder tokens, but no pictures came with it: "
            "pass on everything that the processor returns"
        )

    positions = full_positions(model, family, prompt.ids, prompt.real, inputs)
    width = max(read.kept)
    packed = config.positions == "packed"
    shorter = shorten(model, inputs, columns.keep, positions, width, packed)
    end = last_position(positions, shorter["position_ids"], packed)
    visual = (columns.patches & columns.keep).gather(1, kept_columns(columns.keep, width))

    samples = owners(read.placeholders, videos.layouts)
    kept = [sum(counts) for counts in read.kept_per_frame]
    left = _left(videos, chosen, kept)
    handed = {family.handed_as: left.output(samples), **beside}
    consumed = {*shorter, *seen}
    passed = {name: value for name, value in inputs.items() if name not in consumed}
    pruned = [
        PrunedVideo(
            sample,
            layout,
            counts,
            selection.keep,
            selection.scores.tokens.detach(),
            plan,
            _repeats(layout, rows, selection.keep, count),
        )
        for sample, layout, counts, selection, plan, rows, count in zip(
            samples, videos.layouts, read.kept_per_frame, chosen, videos.plans, left.rows, kept, strict=True
        )
        if layout.frames
    ]
    return (
        {**passed, **shorter, "mm_encoder_outputs": handed},
        PrunedPrompt(prompt.ids, columns.keep, shorter, visual, pruned, end),
    )


def vision_inputs(model: PreTrainedModel, family: Family) -> set[str]:
    """Names of the inputs that only the vision side and the positions read."""
    names = {*family.input_names, *(f"{modality}_grid_thw" for modality in RAW_PIXELS)}
    return names.union(*(family.encoder_inputs(model, modality).values() for modality in family.encoders))


def refuse_unread(family: Family, seen: set[str], inputs: Mapping[str, Any]) -> None:
    """Pixels under a name that is not ``seen`` by the vision side would be left out of the answer without a word."""
    for name in pixel_inputs(inputs):
        if name not in seen:
            raise ValueError(
                f"{family.name} reads no input {name!r}; it reads "
                f"{', '.join(sorted(each for each in seen if each.startswith('pixel_')))}"
            )


def owners(placeholders: Sequence[int], layouts: Sequence[Layout]) -> list[int]:
    """The sample of each video: videos fill the samples' placeholders in order."""
    samples, sample, room = [], -1, 0
    for layout in layouts:
        while room <= 0 and sample + 1 < len(placeholders):
            sample += 1
            room = placeholders[sample]
        samples.append(sample)
        room -= layout.patches + layout.others
    return samples


@dataclass(frozen=True)
class _Prompt:
    """What there is before pruning, each ``(B, L)``."""

    ids: Tensor
    real: Tensor
    placeholder: Tensor
    other: Tensor
    """Placeholders of the other modality."""

    @classmethod
    def of(cls, model: PreTrainedModel, family: Family, inputs: Mapping[str, Any]) -> _Prompt:
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if ids is None:
            raise ValueError("sharpv finds the video by its placeholders: pass input_ids, not inputs_embeds")
        if mask is not None and mask.shape != ids.shape:
            raise ValueError(f"attention_mask must be {tuple(ids.shape)}, as input_ids, got {tuple(mask.shape)}")
        if not family.images_beside and inputs.get(RAW_PIXELS["image"]) is not None:
            raise ValueError(f"{family.name} has one placeholder for both: pass images and videos in separate batches")
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        placeholder = ids == getattr(model.config, family.placeholder)
        other = family.other_placeholder(model)
        others = torch.zeros_like(placeholder) if other is None else ids == other
        return cls(ids, real, placeholder, others)

    def questions(self, model: PreTrainedModel) -> Tensor:
        """Mean embedding of each sample's text after its last placeholder, ``(B, D)``; of all its text if none."""
        after = self.real & ~self.placeholder & (self.placeholder.flip(1).cumsum(1).flip(1) == 0)
        text = torch.where(after.any(1, keepdim=True), after, self.real & ~self.placeholder)
        embedded = model.get_input_embeddings()(self.ids.where(text, 0))
        return embedded.masked_fill(~text[..., None], 0.0).sum(1) / text.sum(1, keepdim=True).clamp(min=1)


@dataclass(frozen=True)
class _Columns:
    """Of the full prompt, each ``(B, L)`` bool: what stays, and what is a patch of a video."""

    keep: Tensor
    patches: Tensor
    rows: int
    """How many placeholders the features ask for."""


@dataclass(frozen=True)
class _Read:
    """What the host has to know."""

    kept: list[int]
    """Columns that stay, of each sample."""
    placeholders: list[int]
    """Of each sample."""
    kept_per_frame: list[list[int]]
    """Of each video."""
    others: int
    """Placeholders of the other modality."""


def _choose(
    model: PreTrainedModel, family: Family, config: Config, prompt: _Prompt, videos: Encoded
) -> list[Selection]:
    """Which patches of each video stay; of still images, which have none, nothing is asked."""
    methods: list[Method] = [config.first] * len(videos.layouts)
    if config.first.needs_question:
        # which sample a video belongs to is another host synchronisation
        samples = owners(prompt.placeholder.sum(1).tolist(), videos.layouts)
        questions = prompt.questions(model)
        methods = [config.first.about(questions[sample]) for sample in samples]
    merges = config.first.merges(family.positions)
    chosen = []
    for method, layout, patches in zip(methods, videos.layouts, videos.patches, strict=True):
        if not layout.frames:
            chosen.append(Selection.nothing(patches))
            continue
        method.check(patches, config.budget)
        selection = method.pick(patches, config.budget, layout.there(patches.device))
        chosen.append(selection if merges else selection.unmerged())
    return chosen


def _lay_out(prompt: _Prompt, layouts: Sequence[Layout], chosen: Sequence[Selection]) -> _Columns:
    """The n-th placeholder of the batch stands for the n-th row that has one; what is no patch always stays."""
    pairs = list(zip(layouts, chosen, strict=True))
    kept = [layout.of_placeholders(layout.spread(selection.keep, others=True)) for layout, selection in pairs]
    every = [layout.spread(torch.ones_like(selection.keep), others=False) for layout, selection in pairs]
    patch = [layout.of_placeholders(rows) for layout, rows in zip(layouts, every, strict=True)]
    stays, is_patch = torch.cat(kept).to(prompt.ids.device), torch.cat(patch).to(prompt.ids.device)
    row = (prompt.placeholder.flatten().cumsum(0) - 1).clamp(0, len(stays) - 1).view_as(prompt.ids)
    keep = prompt.real & (stays[row] | ~prompt.placeholder)
    return _Columns(keep, is_patch[row] & prompt.placeholder, len(stays))


def _read(prompt: _Prompt, columns: _Columns, videos: Encoded, chosen: Sequence[Selection]) -> _Read:
    """How much is left, of each sample and of each frame, and whether all is sound: one host synchronisation."""
    counted = [columns.keep.sum(1), prompt.placeholder.sum(1), prompt.other.sum()[None], _sound(chosen)]
    counted += [selection.keep.sum(1) for selection in chosen]
    host = torch.cat([part.to(prompt.ids.device).long() for part in counted]).tolist()
    ends = accumulate((len(part) for part in counted), initial=0)
    kept, placeholders, (others,), sound, *kept_per_frame = [host[start:end] for start, end in pairwise(ends)]
    if sum(placeholders) != columns.rows:
        raise ValueError(
            f"the prompt has {sum(placeholders)} video placeholder tokens, but the videos have {columns.rows} "
            "features: pass the text and the videos through the processor together"
        )
    if not all(sound):
        index = sound.index(0)
        refuse_non_finite(videos.patches[index], f"video {index}")
    return _Read(kept, placeholders, kept_per_frame, others)


def _sound(chosen: Sequence[Selection]) -> Tensor:
    """Whether each video's features and scores are finite."""
    return torch.stack([selection.sound for selection in chosen if selection.sound is not None])


def _left(videos: Encoded, chosen: Sequence[Selection], kept: Sequence[int]) -> Encoded:
    """The rows that the language model reads, in order, given how many patches of each video stay."""
    picks = [
        first_true(layout.spread(selection.keep, others=True), count + layout.others)
        for layout, selection, count in zip(videos.layouts, chosen, kept, strict=True)
    ]
    return videos.carrying([selection.features for selection in chosen]).picked(picks)


def _repeats(layout: Layout, rows: Tensor, keep: Tensor, kept: int) -> Tensor:
    """How many of the survivors nearly equal the survivor at their place one frame before; nobody waits for it."""
    places = first_true(layout.spread(keep, others=True), kept + layout.others)
    patches = first_true(layout.spread(torch.ones_like(keep), others=False)[places], kept)
    return nearly_repeat(rows[patches], first_true(keep.flatten(), kept), layout.tokens_per_frame)
