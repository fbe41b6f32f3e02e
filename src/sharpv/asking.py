"""A question about a clip, put to a model: what the command line and the benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin
from transformers.generation.streamers import BaseStreamer

from . import embedded
from .models import find_family
from .models.layout import FRAMES
from .models.loading import load_checkpoint
from .pruning import Pruning
from .video.clip import Clip

SMALL_WORLD = "{} knows only its own small synthetic world: on any other clip its answers mean nothing"


@dataclass(frozen=True)
class Answer:
    """What the model said, and how long that took.

    Times are in seconds and begin with the processor's inputs on the model's device.

    Attributes:
        text: the answer.
        tokens: its length.
        seconds: until the last token.
        first_token: until the first (TTFT); with beams, until all are there.
        vision: of that, until the language model began: the vision tower, and choosing what is kept.
        cut: whether it ended because it was as long as allowed.
    """

    text: str
    tokens: int
    seconds: float
    first_token: float
    vision: float
    cut: bool = False


class FirstToken(BaseStreamer):
    """Notes when the first new token is there, and when the language model began to read."""

    def __init__(self) -> None:
        self.calls = 0
        self.began: float | None = None
        self.seen: float | None = None

    @contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[None]:
        """Around ``generate``; waits for the device where the language model begins."""

        def begin(*_: Any) -> None:
            if self.began is None:
                if model.device.type == "cuda":
                    torch.cuda.synchronize(model.device)
                self.began = time.perf_counter()

        handle = model.get_decoder().register_forward_pre_hook(begin)
        try:
            yield
        finally:
            handle.remove()

    def put(self, value: Tensor) -> None:
        self.calls += 1
        if self.calls == 2:  # the prompt comes first
            self.seen = time.perf_counter()

    def end(self) -> None:
        pass


def load(model: str | Path, device: str = "auto", dtype: str = "auto") -> tuple[PreTrainedModel, ProcessorMixin]:
    """A model and its processor: ``"pocket"``, ``"smol"``, a local directory, or a hub id of a supported family.

    Raises:
        ValueError: a family that is not supported (checked before weights are fetched), a device or dtype that is not
            there, a checkpoint that cannot be read, packages that ``"smol"`` needs.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        kind = torch.empty(0, device=device).device.type
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"device {device!r} is not available") from error
    if kind == "meta":
        raise ValueError("device 'meta' holds no weights: pass auto, cpu, cuda, ...")
    if dtype not in ("auto", "float32", "float16", "bfloat16"):
        raise ValueError(f"dtype must be auto, float32, float16 or bfloat16, got {dtype!r}")
    if model in embedded.names():
        try:
            return embedded.loader(str(model))(device, None if dtype == "auto" else getattr(torch, dtype))
        except ImportError as error:
            raise ValueError(str(error)) from error
    return load_checkpoint(model, device, dtype)


def encode(model: PreTrainedModel, processor: ProcessorMixin, clip: Clip, question: str) -> Any:
    """The processor's inputs for one question about one clip."""
    content = [{"type": "video"}, {"type": "text", "text": question}]
    return encode_turns(model, processor, [{"role": "user", "content": content}], [clip])


def encode_turns(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    turns: list[dict[str, Any]],
    clips: Sequence[Clip],
    images: Sequence[Any] = (),
) -> Any:
    """The processor's inputs for a conversation with the model's turn to speak; clips are used as they are.

    Where a processor fuses pictures and a clip has fewer than it needs for one, its last frame is shown again.

    Args:
        turns: chat messages, whose parts of type video and image stand for ``clips`` and ``images`` in order.
    """
    fused = getattr(processor.video_processor, "temporal_patch_size", 1)
    videos, metadata = [], []
    for clip in clips:
        missing = max(fused - len(clip.frames), 0)
        videos.append(np.concatenate([clip.frames, clip.frames[-1:].repeat(missing, axis=0)]))
        facts = clip.metadata()
        facts["frames_indices"] += facts["frames_indices"][-1:] * missing
        metadata.append(facts)
    media: dict[str, Any] = {}
    if videos:
        media = {"videos": videos, "video_metadata": metadata, "do_sample_frames": False}
    if images:
        media["images"] = list(images)
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
    inputs = processor(text=[prompt], return_tensors="pt", **media)
    if media and find_family(model).modality == "image":
        inputs[FRAMES] = _spans(processor, turns, [len(video) for video in videos], images or ())
    return inputs


def _spans(
    processor: ProcessorMixin, turns: list[dict[str, Any]], frames: Sequence[int], images: Sequence[Any]
) -> list[tuple[int, int]]:
    """Where each video's frames lie among all pictures that the model reads, of which a still may be several: tiles."""
    spans: list[tuple[int, int]] = []
    start, left, stills = 0, iter(frames), iter(images)
    for part in (part for turn in turns if not isinstance(turn["content"], str) for part in turn["content"]):
        if len(spans) == len(frames):
            break  # stills behind the last video move none
        if part["type"] == "video":
            spans.append((start, start + next(left)))
            start = spans[-1][1]
        elif part["type"] == "image":
            alone = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])
            tiles = processor(text=[alone], images=[next(stills)], return_tensors="pt")["pixel_values"]
            start += tiles.shape[:-3].numel()
    return spans


def answer(
    model: PreTrainedModel, processor: ProcessorMixin, inputs: Any, max_new_tokens: int = 128, **generation: Any
) -> Answer:
    """Generate, greedily unless told otherwise, pruned if the model is."""
    inputs = inputs.to(model.device, model.dtype)
    if Pruning.of(model) is None:
        inputs = find_family(model).stock_inputs(inputs)
    generation = {"do_sample": False, **generation}
    clock, one = FirstToken(), generation.get("num_beams") in (None, 1)
    with clock.watching(model):
        start = time.perf_counter()
        out = model.generate(**inputs, max_new_tokens=max_new_tokens, streamer=clock if one else None, **generation)
        new = out[0, inputs["input_ids"].shape[1] :].tolist()  # reading the tokens waits for the device
        seconds = time.perf_counter() - start
    assert clock.began is not None
    text = processor.decode(new, skip_special_tokens=True).strip()
    ends = model.generation_config.eos_token_id
    ended = bool(new) and new[-1] in (ends if isinstance(ends, list) else [ends])
    first = seconds if clock.seen is None else clock.seen - start
    cut = len(new) >= max_new_tokens and not ended
    return Answer(text, len(new), seconds, first, clock.began - start, cut)
