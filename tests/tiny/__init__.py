"""Tiny random-weight models of every family, and prompts for them, built in code."""

from __future__ import annotations

import functools

import torch
from transformers import PreTrainedModel

from .frames import InternVL, PerceptionLM, SmolVLM
from .llava import LlavaNextVideo, LlavaOneVision, Pllava, VideoLlava
from .parts import END, EOS, HIGH_M, IMAGE, LAYERS, PAD, START, TEXT, VIDEO, VOCABULARY, Clip, Part
from .qwen import Glm4v, Glm4vMoe, Glm46V, Qwen2VL, Qwen3VL, Qwen3VLMoe, Qwen25VL, Qwen35, Qwen35Moe, VideoLlama3

__all__ = [
    "END", "EOS", "FAMILIES", "HIGH_M", "IMAGE", "LAYERS", "PAD", "START", "TEXT", "VARIANTS", "VIDEO", "VOCABULARY",
    "Clip", "Part", "build", "make",
]  # fmt: skip

FAMILIES = {
    family.model_type: family
    for family in (
        LlavaOneVision(), LlavaNextVideo(), VideoLlava(), Qwen2VL(), Qwen25VL(), Qwen3VL(), Qwen3VLMoe(),
        Qwen35(), Glm4v(), VideoLlama3(), InternVL(), SmolVLM(), PerceptionLM(), Pllava(),
    )
}  # fmt: skip

VARIANTS = {family.model_type: family for family in (Qwen35Moe(), Glm46V(), Glm4vMoe())}
"""Model types that share their family's code with another one: seen, but not put through everything."""


def make(model_type: str, attention: str = "sdpa") -> PreTrainedModel:
    """A tiny model with weights large enough that logits differ when a token is dropped."""
    model = {**FAMILIES, **VARIANTS}[model_type].build(attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    model.generation_config.pad_token_id = PAD
    model.generation_config.eos_token_id = None
    model.generation_config.suppress_tokens = [PAD, IMAGE, VIDEO, START, END]
    return model.eval()


build = functools.lru_cache(make)
"""A tiny model that tests share: whoever changes it puts it back."""
