"""What has to be told to vLLM's own parts, beside the models: the method's name, where ours stand in, the checks.

vLLM's own models keep their names. Ours have names of their own, and a configuration changes over to one of them when
vLLM checks it and our option is there; without the option nothing is another than before.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Iterable
from typing import Any

from ...versions import warn_if_untested
from ...vision.rules import ENCODINGS
from .options import METHOD, Options
from .selection import refuse_inexact

logger = logging.getLogger("sharpv")

CPU_WORKER = "sharpv.integrations.vllm.cpu.Worker"
STOCK_WORKERS = ("auto", "vllm.v1.worker.cpu_worker.CPUWorker")


def ours(architecture: str) -> str:
    """The name under which our model for one of vLLM's architectures is registered."""
    return f"SharpV{architecture}"


def accept_method(architectures: Iterable[str]) -> None:
    """Make ``sharpv`` a value of ``--video-pruning-method``; without it, ``--hf-overrides`` does the same."""
    from typing import Literal, get_args

    from pydantic.dataclasses import rebuild_dataclass
    from vllm.config.multimodal import MultiModalConfig
    from vllm.engine.arg_utils import EngineArgs

    try:
        field = MultiModalConfig.__dataclass_fields__["video_pruning_method"]
        names = get_args(field.type)
        if METHOD in names:
            return
        create, default = EngineArgs.create_model_config, EngineArgs.video_pruning_method
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
        return

    @functools.wraps(create)
    def create_model_config(self: Any) -> Any:
        by_flag = self.video_pruning_method == METHOD
        args = self
        if by_flag:  # vLLM's own model, of which the configuration is made, would not know the method
            args = copy.copy(self)
            args.video_pruning_method = default
        config = create(args)
        if by_flag and config.multimodal_config is not None:
            config.multimodal_config.video_pruning_method = METHOD
        if by_flag or hasattr(config.hf_config, METHOD):
            swap_in(config, architectures)
        return config

    EngineArgs.create_model_config = create_model_config


def swap_in(model_config: Any, architectures: Iterable[str]) -> None:
    """Change a configuration over to our model of its architecture, with the options in full.

    Raises:
        ValueError: an architecture that we have no model for, or options that are refused.
    """
    from vllm.engine.arg_utils import EngineArgs
    from vllm.version import __version__ as version

    found, known = model_config.architecture, list(architectures)
    if found in map(ours, known):
        return
    if found not in known:
        raise ValueError(f"sharpv in vLLM prunes {', '.join(known)}, got {found}")
    options = Options.of(model_config)
    if options is None:
        raise ValueError(f"sharpv in vLLM prunes videos, and this {found} takes none")
    method = model_config.multimodal_config.video_pruning_method
    if method not in (METHOD, EngineArgs.video_pruning_method):  # vLLM's default says nothing
        raise ValueError(f"--video-pruning-method {method} and sharpv's options ask for two things: leave one out")
    refuse_inexact(options)
    warn_if_untested("vllm", version, logger.warning)
    if model_config.hf_config.model_type == "llava_onevision":
        positions_of_our_own(model_config)
    setattr(model_config.hf_config, METHOD, options.to_dict())
    model_config.hf_config.architectures = [ours(found)]
    model_config.model_arch_config = model_config.get_model_arch_config()
    model_config._model_info, model_config._architecture = model_config.registry.inspect_model_cls(
        [ours(found)], model_config
    )


def check_options(architectures: Iterable[str]) -> None:
    """Have vLLM look for sharpv's option when it checks a model's configuration, before anything is loaded."""
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig

    known = tuple(architectures)
    for architecture in known:
        before = MODELS_CONFIG_MAP.get(architecture, VerifyAndUpdateConfig)
        if not issubclass(before, _Stock):
            MODELS_CONFIG_MAP[ours(architecture)] = type(ours(architecture), (_Pruned, before), {})
            MODELS_CONFIG_MAP[architecture] = type(architecture, (_Stock, before), {"known": known})


class _Stock:
    """Mixin before the class that vLLM asks about the configuration of one of its own architectures."""

    known: tuple[str, ...]

    @classmethod
    def verify_and_update_model_config(cls, model_config: Any) -> None:
        super().verify_and_update_model_config(model_config)  # type: ignore[misc]
        if Options.of(model_config) is not None:
            swap_in(model_config, cls.known)


class _Pruned:
    """Mixin before the same class for one of ours."""

    @classmethod
    def verify_and_update_config(cls, vllm_config: Any) -> None:
        super().verify_and_update_config(vllm_config)  # type: ignore[misc]
        if vllm_config.speculative_config is not None:
            raise ValueError("sharpv does not go together with speculative decoding: the draft model would not prune")
        refuse_beside_encode(vllm_config)
        from vllm.platforms import current_platform

        parallel = vllm_config.parallel_config
        if current_platform.is_cpu() and parallel.worker_cls != CPU_WORKER:
            if parallel.worker_cls not in STOCK_WORKERS:
                raise ValueError(f"on a CPU sharpv needs a --worker-cls of its own: leave out {parallel.worker_cls!r}")
            parallel.worker_cls = CPU_WORKER


def refuse_beside_encode(vllm_config: Any) -> None:
    """Refuse, with a ValueError, what a tower that leaves patches out does not go together with."""
    model, lora = vllm_config.model_config, vllm_config.lora_config
    options = Options.of(model)
    if options is None or options.config.encoding.rule is None:
        return
    tower = model.hf_config.vision_config.model_type
    encode = ENCODINGS.spell(options.config.encoding.rule)
    for there, what in (
        (model.multimodal_config.mm_encoder_tp_mode == "data", "--mm-encoder-tp-mode data, which parts videos by rank"),
        (vllm_config.compilation_config.compile_mm_encoder, "compile_mm_encoder, which fixes what runs in the tower"),
        (
            lora is not None and lora.enable_tower_connector_lora,
            "--enable-tower-connector-lora, which counts all tokens",
        ),
        (tower == "clip_vision_model", "a CLIP tower"),
    ):
        if there:
            raise ValueError(f"sharpv's encode={encode!r} does not go together with {what}: leave one out")


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
