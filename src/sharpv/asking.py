"""A question about a clip, put to a model: what the command line and the benchmarks share."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from . import pocket, smol
from .budget import Budget
from .criteria import get_criterion
from .handle import Handle
from .methods import get_method
from .models import find_family, list_models
from .models.layout import FRAMES
from .video import Clip

EMBEDDED = {"pocket": pocket.load, "smol": smol.load}
"""Names of the embedded models wherever a model is named."""
SMALL_WORLD = "{} knows only its own small synthetic world: on any other clip its answers mean nothing"


@dataclass(frozen=True)
class Answer:
    """What the model said: the text, its length in tokens, and the wall time of ``generate`` in seconds."""

    text: str
    tokens: int
    seconds: float


def load(model: str | Path, device: str = "cpu", dtype: str = "auto") -> tuple[PreTrainedModel, ProcessorMixin]:
    """A model and its processor: ``"pocket"``, ``"smol"``, a local directory, or a hub id of a supported family.

    Raises:
        ValueError: a family that is not supported (checked before weights are fetched), a device or dtype that is not
            there, a checkpoint that cannot be read, packages that ``"smol"`` needs.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} is not available") from error
    if dtype not in ("auto", "float32", "float16", "bfloat16"):
        raise ValueError(f"dtype must be auto, float32, float16 or bfloat16, got {dtype!r}")
    if model in EMBEDDED:
        try:
            return EMBEDDED[str(model)](device, None if dtype == "auto" else getattr(torch, dtype))
        except ImportError as error:
            raise ValueError(str(error)) from error
    try:
        model_type = AutoConfig.from_pretrained(model).model_type
        if model_type not in list_models():
            raise ValueError(f"model type {model_type!r} is not supported; supported: {', '.join(list_models())}")
        loaded = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype)
        processor = AutoProcessor.from_pretrained(model)
    except OSError as error:
        where = "" if Path(model).is_dir() else "there is no such directory, and as a hub id: "
        raise ValueError(f"cannot load the model {str(model)!r}: {where}{str(error).splitlines()[0]}") from error
    return loaded.to(device).eval(), processor


def check(method: str, *, memory: float | None, retention: float | None, max_tokens: int | None) -> None:
    """Refuse what :func:`sharpv.apply` would refuse, before a model is loaded."""
    get_method(method).require_budget(Budget(retention, max_tokens))
    get_criterion(memory)


def encode(model: PreTrainedModel, processor: ProcessorMixin, clip: Clip, question: str) -> Any:
    """The processor's inputs for one question about one clip; the clip's frames are used as they are.

    Where a processor fuses pictures and the clip has fewer than it needs for one, its last frame is shown again.
    """
    fused = getattr(processor.video_processor, "temporal_patch_size", 1)
    missing = max(fused - len(clip.frames), 0)
    frames = np.concatenate([clip.frames, clip.frames[-1:].repeat(missing, axis=0)])
    metadata = clip.metadata()
    metadata["frames_indices"] += metadata["frames_indices"][-1:] * missing
    content = [{"type": "video"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(
        text=[prompt],
        videos=[frames],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_tensors="pt",
    )
    if find_family(model).modality == "image":
        inputs[FRAMES] = [len(frames)]
    return inputs


def answer(model: PreTrainedModel, processor: ProcessorMixin, inputs: Any, max_new_tokens: int = 128) -> Answer:
    """Generate greedily, pruned if the model is."""
    inputs = inputs.to(model.device, model.dtype)
    if Handle.of(model) is None:
        inputs = find_family(model).stock_inputs(inputs)
    start = time.perf_counter()
    out = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    new = out[0, inputs["input_ids"].shape[1] :].tolist()  # reading the tokens waits for the device
    seconds = time.perf_counter() - start
    return Answer(processor.decode(new, skip_special_tokens=True).strip(), len(new), seconds)
