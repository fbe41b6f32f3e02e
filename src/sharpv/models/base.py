"""What the library has to know of a model family, as data, and how its vision tower is asked for features."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from transformers import PreTrainedModel

RAW_PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}


@dataclass(frozen=True)
class Layout:
    """How one video's feature rows lie: ``frames * height * width`` patches in raster order, then ``trailing`` rows
    that are not patches (a newline token) and are never scored or dropped."""

    frames: int
    height: int
    width: int
    trailing: int = 0

    @property
    def tokens_per_frame(self) -> int:
        return self.height * self.width

    @property
    def patches(self) -> int:
        return self.frames * self.tokens_per_frame

    def split(self, rows: Tensor) -> Tensor:
        """The patches of ``(n, D)`` feature rows as ``(T, N, D)``."""
        return rows[: self.patches].unflatten(0, (self.frames, self.tokens_per_frame))


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        name: shown in tables and messages.
        model_types: values of ``config.model_type`` that belong to it.
        examples: hub ids of checkpoints.
        layouts: from the model and its inputs to one :class:`Layout` per video, in prompt order.
        positions: "1d" for plain RoPE, "mrope" for (text, time, height, width) rows from ``get_rope_index``.
        batched_features: the model's forward reads video features as one tensor ``(1, rows, D)`` instead of a list
            with one tensor per video.
        input_names: inputs that only the vision side and the positions read, besides those in the signatures of
            ``get_image_features`` and ``get_video_features``; they are dropped once both are computed.
    """

    name: str
    model_types: tuple[str, ...]
    examples: tuple[str, ...]
    layouts: Callable[[PreTrainedModel, Mapping[str, Any]], list[Layout]]
    positions: Literal["1d", "mrope"] = "1d"
    batched_features: bool = False
    input_names: tuple[str, ...] = ()

    def encoder_inputs(self, model: PreTrainedModel, modality: str) -> list[str]:
        """Names of the inputs that ``get_{modality}_features`` takes."""
        encoder = getattr(model.base_model, f"get_{modality}_features")
        return [name for name in inspect.signature(encoder).parameters if name != "kwargs"]

    def encode(self, model: PreTrainedModel, modality: str, inputs: Mapping[str, Any]) -> Any:
        """Run the model's own vision side; the activations inside the tower are let go."""
        names = self.encoder_inputs(model, modality)
        known = {name: inputs[name] for name in names if inputs.get(name) is not None}
        output = getattr(model.base_model, f"get_{modality}_features")(**known, return_dict=True)
        output.last_hidden_state = output.hidden_states = output.attentions = None
        return output
