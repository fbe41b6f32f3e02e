"""A VideoLLM small enough to ship: LLaVA-OneVision's architecture at 1.3 million parameters, trained from scratch.

>>> from sharpv import pocket
>>> model, processor = pocket.load()
>>> clip = pocket.sample_clip()          # a small mp4; its questions and answers lie beside it as json

The model knows the synthetic world of :mod:`sharpv.pocket.world` and nothing else: it is there to show, test and
measure pruning on a model that really answers questions, without a download and without a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

__all__ = ["checkpoint_path", "load", "sample_clip"]

_HERE = Path(__file__).parent


def checkpoint_path() -> Path:
    """The directory of the shipped checkpoint; the Auto classes load it."""
    return _HERE / "checkpoint"


def load(
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    directory: str | Path | None = None,
) -> tuple[LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor]:
    """The pocket model in evaluation mode and its processor; ``dtype`` is float32 unless told otherwise."""
    import torch

    from ..models.loading import load_checkpoint

    path = Path(directory or checkpoint_path())
    if not (path / "config.json").exists():
        raise FileNotFoundError(f"no checkpoint in {path}; make one with: python -m training.pocket.train DIR")
    return load_checkpoint(path, device, dtype or torch.float32)


def sample_clip(name: str = "mover") -> Path:
    """The path of a shipped demo clip (mp4); the json of the same name has its questions and true answers."""
    path = _HERE / "clips" / f"{name}.mp4"
    if not path.exists():
        known = sorted(clip.stem for clip in path.parent.glob("*.mp4"))
        raise ValueError(f"no clip {name!r}; known clips: {known}")
    return path
