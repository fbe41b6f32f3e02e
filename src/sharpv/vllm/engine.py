"""What has to be told to vLLM's own parts, beside the models: the method's name, the checks, and two mends."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from typing import Any

from .options import METHOD, Options

logger = logging.getLogger("sharpv")


def accept_method() -> None:
    """Make ``sharpv`` a value of ``--video-pruning-method``; without it, ``--hf-overrides`` does the same."""
    from typing import Literal, get_args

    from pydantic.dataclasses import rebuild_dataclass
    from vllm.config.multimodal import MultiModalConfig

    try:
        field = MultiModalConfig.__dataclass_fields__["video_pruning_method"]
        names = get_args(field.type)
        if METHOD not in names:
            longer: Any = Literal.__getitem__((*names, METHOD))
            MultiModalConfig.__annotations__["video_pruning_method"] = longer
            field.type = longer
            MultiModalConfig.__pydantic_fields__["video_pruning_method"].annotation = longer
            rebuild_dataclass(MultiModalConfig, force=True)
    except (AttributeError, KeyError, TypeError) as error:
        logger.warning(
            "this vLLM does not take --video-pruning-method %s (%s): use --hf-overrides '{\"%s\": {}}' instead",
            METHOD, error, METHOD,
        )  # fmt: skip


def check_options(architectures: Iterable[str]) -> None:
    """Have vLLM check sharpv's options when it checks a model's configuration, before anything is loaded."""
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig

    for architecture in architectures:
        before = MODELS_CONFIG_MAP.get(architecture, VerifyAndUpdateConfig)
        if not issubclass(before, _Checked):
            MODELS_CONFIG_MAP[architecture] = type(f"Checked{architecture}", (_Checked, before), {})


class _Checked:
    """Mixin before the class that vLLM asks about an architecture's configuration."""

    @classmethod
    def verify_and_update_model_config(cls, model_config: Any) -> None:
        super().verify_and_update_model_config(model_config)  # type: ignore[misc]
        options = Options.of(model_config)
        if model_config.hf_config.model_type == "llava_onevision":
            if options is not None:
                positions_of_our_own(model_config)
            elif model_config.multimodal_config and model_config.multimodal_config.video_pruning_rate:
                method = model_config.multimodal_config.video_pruning_method
                raise ValueError(f"vLLM prunes no videos of LLaVA-OneVision with {method!r}: use {METHOD!r}")

    @classmethod
    def verify_and_update_config(cls, vllm_config: Any) -> None:
        super().verify_and_update_config(vllm_config)  # type: ignore[misc]
        if Options.of(vllm_config.model_config) is not None and vllm_config.speculative_config is not None:
            raise ValueError("sharpv does not go together with speculative decoding: the draft model would not prune")


def positions_of_our_own(model_config: Any) -> None:
    """Let a model with one position a token take positions that we give, which vLLM offers to M-RoPE models only.

    M-RoPE with three equal channels is the plain rotary embedding, whatever its sections.

    Raises:
        ValueError: the language model is one that vLLM compiles for consecutive positions.
    """
    text = model_config.hf_text_config
    if text.model_type != "qwen2" and not model_config.enforce_eager:
        raise ValueError(
            f"sharpv prunes LLaVA-OneVision on a Qwen2 language model; on {text.model_type!r} it needs --enforce-eager"
        )
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    text.rope_parameters = {
        **text.rope_parameters,
        "mrope_section": [head // 2 - 2 * (head // 6), head // 6, head // 6],
    }


def refuse(architectures: Iterable[str], reason: str) -> None:
    """Let a vLLM that we do not know refuse our option, where it would pass over it."""
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig

    for architecture in architectures:
        before = MODELS_CONFIG_MAP.get(architecture, VerifyAndUpdateConfig)
        MODELS_CONFIG_MAP[architecture] = type(f"Refusing{architecture}", (_Refusing, before), {"reason": reason})


class _Refusing:
    reason: str

    @classmethod
    def verify_and_update_config(cls, vllm_config: Any) -> None:
        if hasattr(vllm_config.model_config.hf_config, METHOD):
            raise ValueError(cls.reason)
        super().verify_and_update_config(vllm_config)  # type: ignore[misc]


def mend_cpu_runner() -> None:
    """Two mends of vLLM's CPU runner, on CPU only: it prunes at all, and it encodes videos together.

    * Its ``load_model`` does not set the flag that has positions recomputed (docs/upstream/cpu-pruning-flag.md).
    * With the flag set, videos are encoded one by one, since the scheduler counts what is left of a video. Our models
      divide a batch by what is encoded (:func:`.model.groups`), so they get it whole.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.model_executor.models.interfaces import supports_multimodal_pruning
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    if getattr(CPUModelRunner, "_mended_by_sharpv", False):
        return
    load_model, encode = CPUModelRunner.load_model, CPUModelRunner._execute_mm_encoder

    @functools.wraps(load_model)
    def load_model_and_flag(self: Any, *args: Any, **kwargs: Any) -> None:
        load_model(self, *args, **kwargs)
        config = self.model_config.multimodal_config
        self.is_multimodal_pruning_enabled = (
            supports_multimodal_pruning(self.get_model())
            and config is not None
            and config.is_multimodal_pruning_enabled()
        )

    @functools.wraps(encode)
    def encode_together(self: Any, *args: Any, **kwargs: Any) -> Any:
        flag = self.is_multimodal_pruning_enabled
        self.is_multimodal_pruning_enabled = flag and getattr(self.get_model(), "sharpv", None) is None
        try:
            return encode(self, *args, **kwargs)
        finally:
            self.is_multimodal_pruning_enabled = flag

    CPUModelRunner.load_model = load_model_and_flag
    CPUModelRunner._execute_mm_encoder = encode_together
    CPUModelRunner._mended_by_sharpv = True
