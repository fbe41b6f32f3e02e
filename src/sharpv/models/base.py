"""What the library has to know of a model family, as data, and how its vision tower is asked for features."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

RAW_PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}


@dataclass(frozen=True)
class Layout:
    """How one video's feature rows lie: for each frame ``leading`` rows and ``height * width`` patches in raster order,
    then ``trailing`` rows. Rows that are not patches (a class token, a newline) are never scored or dropped."""

    frames: int
    height: int
    width: int
    leading: int = 0
    trailing: int = 0

    @property
    def tokens_per_frame(self) -> int:
        return self.height * self.width

    @property
    def patches(self) -> int:
        return self.frames * self.tokens_per_frame

    @property
    def others(self) -> int:
        """Rows that are not patches."""
        return self.frames * self.leading + self.trailing

    def split(self, rows: Tensor) -> Tensor:
        """The patches of ``(n, D)`` feature rows as ``(T, N, D)``."""
        frames = rows[: len(rows) - self.trailing].unflatten(0, (self.frames, self.leading + self.tokens_per_frame))
        return frames[:, self.leading :]

    def spread(self, patches: Tensor, others: bool) -> Tensor:
        """The inverse for a mask: ``(T, N)`` bool over patches to ``(n,)`` over rows, ``others`` where no patch is."""
        frames = torch.cat([patches.new_full((self.frames, self.leading), others), patches], dim=1).flatten()
        return torch.cat([frames, frames.new_full((self.trailing,), others)])


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
        placeholder: the attribute of the config that holds the id of a video's placeholder tokens.
        encoders: per modality, the method that encodes its pixels.
        input_names: inputs that only the vision side and the positions read, besides those in the signatures of the
            encoders; they are dropped once features and positions are computed.
    """

    name: str
    model_types: tuple[str, ...]
    examples: tuple[str, ...]
    layouts: Callable[[PreTrainedModel, Mapping[str, Any]], list[Layout]]
    positions: Literal["1d", "mrope"] = "1d"
    batched_features: bool = False
    placeholder: str = "video_token_id"
    encoders: Mapping[str, str] = field(
        default_factory=lambda: {"image": "get_image_features", "video": "get_video_features"}
    )
    input_names: tuple[str, ...] = ()

    def encoder_inputs(self, model: PreTrainedModel, modality: str) -> dict[str, str]:
        """Arguments of the modality's encoder, each with the name of the user's input that fills it."""
        encoder = getattr(model.base_model, self.encoders[modality])
        names = [name for name in inspect.signature(encoder).parameters if name != "kwargs"]
        # an encoder that serves both modalities takes a video's pixels under the name of an image's
        return {name: RAW_PIXELS[modality] if name in RAW_PIXELS.values() else name for name in names}

    def encode(self, model: PreTrainedModel, modality: str, inputs: Mapping[str, Any]) -> Any:
        """Run the model's own vision side; the activations inside the tower are let go."""
        names = self.encoder_inputs(model, modality)
        known = {name: inputs[given] for name, given in names.items() if inputs.get(given) is not None}
        output = getattr(model.base_model, self.encoders[modality])(**known, return_dict=True)
        output.last_hidden_state = output.hidden_states = output.attentions = None
        return output


def square_frames(side: int, frames: int, videos: int, *, leading: int = 0, trailing: int = 0) -> list[Layout]:
    """Layouts of equally large square frames, as towers of a fixed input size make them."""
    return [Layout(frames, side, side, leading, trailing)] * videos
