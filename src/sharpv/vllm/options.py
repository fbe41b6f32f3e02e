"""What a user of the plugin can set, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from ..budget import Budget
from ..checks import number, set_numbers, whole

METHOD = "sharpv"
"""Value of vLLM's ``--video-pruning-method``, and the key of ``--hf-overrides``."""


@dataclass(frozen=True)
class Options:
    """How videos are pruned; the share comes from vLLM's ``--video-pruning-rate``, the rest from ``--hf-overrides``.

    Args:
        rate: the PRUNED share, in (0, 1), as vLLM counts it; ``1 - rate`` is the retention ratio.
        mode: "budget": a video keeps the share ``1 - rate`` exactly, shared out over its frames by what they ask for.
            "adaptive": the content decides how much, at most that share. vLLM fixes the length of a prompt before the
            model has seen the video, so the count is an estimate, by the paper's rule on pixels in place of features.
        gain: factor on the estimated shares of the adaptive mode.
        floor: least number of tokens that a frame keeps.
        weight: w of I_t = T_t + w S_t. Paper: 1.

    Raises:
        ValueError: a value out of range.
    """

    rate: float
    mode: Literal["budget", "adaptive"] = "budget"
    gain: float = 1.0
    floor: int = 0
    weight: float = 1.0

    def __post_init__(self) -> None:
        rate = number("video_pruning_rate", self.rate)
        if not 0.0 < rate < 1.0:
            raise ValueError(f"video_pruning_rate is the pruned share and must lie in (0, 1), got {self.rate}")
        if self.mode not in ("budget", "adaptive"):
            raise ValueError(f"sharpv's mode must be 'budget' or 'adaptive', got {self.mode!r}")
        gain, weight = number("sharpv's gain", self.gain, above=0), number("sharpv's weight", self.weight, least=0)
        set_numbers(self, rate=rate, gain=gain, floor=whole("sharpv's floor", self.floor, least=0), weight=weight)

    @classmethod
    def of(cls, model_config: Any) -> Options | None:
        """What a vLLM ``ModelConfig`` asks for, None when SharpV is off.

        Raises:
            ValueError: options that do not exist, or that do not go together.
        """
        multimodal = model_config.multimodal_config
        asked = getattr(model_config.hf_config, METHOD, None)
        if multimodal is None or (asked is None and multimodal.video_pruning_method != METHOD):
            return None
        asked = {} if asked is None else asked
        if not isinstance(asked, Mapping):
            raise ValueError(f'--hf-overrides takes {{"{METHOD}": {{...}}}}, got {asked!r}')
        if "memory" in asked:
            raise ValueError("stage 2 (memory) is not possible in vLLM's paged KV cache: leave it out")
        known = [each.name for each in fields(cls) if each.name != "rate"]
        unknown = [name for name in asked if name not in known]
        if unknown:
            raise ValueError(f"sharpv has no option {unknown[0]!r} in vLLM; it has {', '.join(known)}")
        if not multimodal.video_pruning_rate:
            raise ValueError("sharpv in vLLM needs --video-pruning-rate, for instance 0.75 to keep 25 % of the tokens")
        return cls(rate=float(multimodal.video_pruning_rate), **asked)

    def most(self, tokens: int) -> int:
        """How many of a video's tokens may be kept at most."""
        total = Budget(retention=1.0 - self.rate).total(tokens)
        assert total is not None
        return total
