"""A checkpoint as a model and its processor: whole, or refused in one sentence.

transformers fills weights that a checkpoint lacks, or has in another shape, with random numbers and warns. An answer
from such a model looks like any other, so here it is an error.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from . import list_models, unsupported

LFS = b"version https://git-lfs"
"""How such a pointer begins."""
SHOWN = 3
"""Names of weights that a message lists."""


def load_checkpoint(
    source: str | Path, device: str | torch.device = "cpu", dtype: str | torch.dtype = "auto"
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A model in evaluation mode and its processor, from a local directory or a hub id.

    Raises:
        ValueError: a family that is not supported (checked before weights are fetched), weights that are missing or of
            another shape (a few are named), files that cannot be read. The message begins "cannot load the model".
    """
    try:
        model_type = AutoConfig.from_pretrained(source).model_type
        if model_type in list_models():
            # what does not fit is refused below, by name
            loaded, info = AutoModelForImageTextToText.from_pretrained(
                source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
            )
            processor = AutoProcessor.from_pretrained(source)
            reason = incomplete(info)
            if not reason:
                return loaded.to(device).eval(), processor
        else:
            reason = unsupported(model_type)
    except Exception as error:
        where = "" if Path(source).is_dir() else "there is no such directory, and as a hub id: "
        reason = _pointer(Path(source)) or f"{where}{_first_line(error)}"
        raise ValueError(f"cannot load the model {str(source)!r}: {reason}") from error
    raise ValueError(f"cannot load the model {str(source)!r}: {reason}")


def incomplete(info: dict[str, Any]) -> str:
    """What transformers' loading info says is not as the model needs it, in words; empty if nothing."""
    missing = sorted(info.get("missing_keys") or ())
    shapes = sorted(key if isinstance(key, str) else key[0] for key in info.get("mismatched_keys") or ())
    found = []
    if missing:
        found.append(f"the checkpoint lacks {_some(missing)}")
    if shapes:
        found.append(f"{_some(shapes)} {'has' if len(shapes) == 1 else 'have'} another shape")
    return ", and ".join(found)


def _pointer(folder: Path) -> str:
    """Which file is what Git LFS leaves in the place of a large one, in words; empty if none."""
    for path in sorted(path for path in folder.glob("*") if path.is_file()):
        with path.open("rb") as file:
            if file.read(len(LFS)) == LFS:
                return f"{path.name} is a Git LFS pointer, not the file itself: run 'git lfs pull' there"
    return ""


def _some(names: Collection[str]) -> str:
    listed = ", ".join(list(names)[:SHOWN])
    return listed if len(names) <= SHOWN else f"{listed} and {len(names) - SHOWN} more ({len(names)} weights)"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
