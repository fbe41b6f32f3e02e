"""What a user of the plugin can set, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from ...checks import is_real, number, set_numbers
from ...config import Config, options
from ...methods.budget import Budget

METHOD = "sharpv"
"""Value of vLLM's ``--video-pruning-method``, and the key of ``--hf-overrides``."""
HONOURED = ("method", *(each.name for each in fields(Budget)), "encode")
"""Fields of a configuration that vLLM can follow: which tokens, how many, and which patches are encoded."""
REASONS = {
    "memory": "stage 2 (memory={}) is not possible in vLLM's paged KV cache, whose blocks all layers share",
    "positions": "in vLLM tokens keep their positions in the full prompt, positions={} is not possible",
    "frames_at_once": "what vLLM encodes at once is set by --max-num-batched-tokens, not by frames_at_once={}",
}


@dataclass(frozen=True)
class Options:
    """How videos are pruned: a configuration, and what only vLLM has.

    Args:
        config: its ``retention`` is what vLLM's ``--video-pruning-rate`` leaves.
        counting: "exact": a video keeps the configuration's share exactly. "pixels": at most that share, as its pixels
            ask for. vLLM fixes the length of a prompt before the model has seen the video, so this is an estimate:
            SharpV's rule on pixels in place of features, whatever method then chooses the tokens.
        gain: factor on the shares that pixels ask for.

    Raises:
        TypeError: a gain that is no number.
        ValueError: a value out of range, or a configuration that vLLM cannot follow.
    """

    config: Config
    counting: Literal["exact", "pixels"] = "exact"
    gain: float = 1.0

    def __post_init__(self) -> None:
        if self.counting not in ("exact", "pixels"):
            raise ValueError(f"sharpv's counting must be 'exact' or 'pixels', got {self.counting!r}")
        set_numbers(self, gain=number("sharpv's gain", self.gain, above=0))
        if self.gain != 1 and self.counting == "exact":
            raise ValueError(f"sharpv's gain is a factor on counting='pixels', got {self.gain} without it")
        if self.config.retention is None:
            raise ValueError("sharpv in vLLM needs the retention that --video-pruning-rate leaves, got None")
        for each in options():
            value = getattr(self.config, each.name)
            if each.name not in HONOURED and value != each.default:
                reason = REASONS.get(each.name, f"vLLM cannot follow {each.name}={{}}")
                raise ValueError(f"{reason.format(repr(value))}: leave it out")
        if self.config.first.needs_question:
            raise ValueError(
                f"method {self.config.first.name!r} wants to know the question, which vLLM's encoder does not: "
                "choose another ('sharpv methods' lists them)"
            )

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
        if not multimodal.video_pruning_rate:
            raise ValueError("sharpv in vLLM needs --video-pruning-rate, for instance 0.75 to keep 25 % of the tokens")
        return cls.from_dict(asked, multimodal.video_pruning_rate)

    @classmethod
    def from_dict(cls, asked: Mapping[str, Any], rate: float) -> Options:
        """Options as ``--hf-overrides`` gives them, or :meth:`to_dict`.

        Args:
            asked: fields of :class:`~sharpv.Config`, or ``config`` for a file that it wrote, which the others change;
                and ``counting`` and ``gain``.
            rate: the PRUNED share, as vLLM counts it.

        Raises:
            ValueError: an unknown name, a value that is refused, a retention that is not what the rate leaves.
        """
        values = dict(asked)
        own = {name: values.pop(name) for name in ("counting", "gain") if name in values}
        file = values.pop("config", None)
        for name in values:
            if name != METHOD and name not in [each.name for each in options()]:  # METHOD: the version that wrote it
                known = ", ".join((*HONOURED, "config", "counting", "gain"))
                raise ValueError(f"sharpv has no option {name!r} in vLLM; it has {known}")
        kept = round(1.0 - float(rate), 12)  # 1 - 0.9 is not quite 0.1
        try:
            if file is not None:
                values = Config.load(file).to_dict() | values
            given = values.get("retention")
            if given is not None and not (is_real(given) and math.isclose(given, kept, abs_tol=1e-9)):
                raise ValueError(
                    f"retention={given!r} is not what --video-pruning-rate {rate} leaves, {kept}: leave it out"
                )
            return cls(Config.from_dict(values | {"retention": kept}), **own)
        except (TypeError, OSError) as error:
            raise ValueError(f"sharpv's options are not accepted: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the inverse of :meth:`from_dict`: nothing in it has to be looked up in a file again."""
        return {**self.config.to_dict(), "counting": self.counting, "gain": self.gain}
