"""SharpV in vLLM: a plugin that vLLM loads by itself when both are installed.

    vllm serve Qwen/Qwen3-VL-8B-Instruct --video-pruning-method sharpv --video-pruning-rate 0.75

keeps 25 % of each video's tokens before the language model; see ``docs/how-to/vllm.md``.
"""

from __future__ import annotations

import logging

__all__ = ["register"]

logger = logging.getLogger("sharpv")

OLDEST = (0, 32)
"""Of those before, each runs with transformers below 5.18 only (0.31), or with a newer one but not right (0.29)."""
MODELS = {
    "LlavaOnevisionForConditionalGeneration": "llava_onevision:PrunedLlavaOnevision",
    "Qwen2_5_VLForConditionalGeneration": "qwen2_5_vl:PrunedQwen2_5VL",
    "Qwen3VLForConditionalGeneration": "qwen3_vl:PrunedQwen3VL",
}


def register() -> None:
    """What vLLM calls at its start, in each of its processes; where nobody asks to prune, all stays as it is."""
    from vllm import ModelRegistry
    from vllm.version import __version_tuple__ as version

    from . import engine

    if tuple(version[:2]) < OLDEST:
        found = ".".join(map(str, version[:3]))
        reason = f"sharpv needs vLLM {OLDEST[0]}.{OLDEST[1]} or newer, this is {found}"
        logger.warning("%s: it prunes nothing here", reason)
        engine.refuse(MODELS, reason)
        return
    for architecture, model in MODELS.items():
        ModelRegistry.register_model(engine.ours(architecture), f"sharpv.integrations.vllm.{model}")
    engine.check_options(MODELS)
    engine.accept_method(MODELS)
