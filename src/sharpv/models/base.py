"""What the library has to know of a model family, as data, and how its vision tower is asked for features."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .layout import FRAMES, Layout, frame_spans
from .tower import Tower

RAW_PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}
FEATURES = ("pooler_output", "deepstack_features")
"""What a language model reads of an encoder's output."""


def pixel_inputs(inputs: Mapping[str, Any]) -> list[str]:
    """Names of what is given as pixels, whether anything reads it or not."""
    return [name for name, value in inputs.items() if name.startswith("pixel_") and value is not None]


Layouts = Callable[[PreTrainedModel, Mapping[str, Any], "int | None"], list[Layout]]


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        name: shown in tables and messages.
        model_types: values of ``config.model_type`` that belong to it.
        variants: those of them that share all code with another one and are tested in greedy decoding and beams only.
        examples: hub ids of checkpoints.
        since: the first transformers on which its tests are green.
        layouts: from the model, its inputs and the number of rows that the encoder made (None: not run) to the
            :class:`Layout` of each video, and of each run of still images among its frames, in prompt order.
        hybrid: some layers hold a state instead of keys and values, so the second stage passes them over.
        modality: whose encoder and pixels serve videos: "image" where frames are read as images.
        handed_as: under which name the language model takes their features, which is also how ``generate`` finds their
            placeholders for beams and prefill chunks.
        positions: "1d" for plain RoPE, "mrope" for (text, time, height, width) rows from ``get_rope_index``.
        batched_features: the model's forward reads video features as one tensor ``(1, rows, D)`` instead of a list
            with one tensor per video.
        placeholder: the attribute of the config that holds the id of a video's placeholder tokens.
        images_beside: whether images may stand beside videos in a batch.
        offload: whether the model runs with weights that accelerate keeps elsewhere, as transformers has it.
        frames_as: how a video's pixels lie: as "pictures" ``(videos, T, C, H, W)``, as "patches", rows under
            ``video_grid_thw``, or as "images", among stills, which :data:`FRAMES` tells apart.
        crosses_frames: features are pooled over frames, so that a video cannot be encoded in pieces.
        pads_samples: images come by sample, ``(B, n, C, H, W)``, padded with black ones.
        tower: where the vision tower can be cut; None: it has attention of its own.
        per_video: inputs of the encoder with one entry per video, besides ``video_grid_thw``.
        per_picture: inputs of the encoder with one entry per picture.
        encoders: per modality, the method that encodes its pixels.
        input_names: inputs that only the vision side and the positions read, besides those in the signatures of the
            encoders; they are dropped once features and positions are computed.
        also_called: what its own processor calls an input, with the name under which the encoders take it.
    """

    name: str
    model_types: tuple[str, ...]
    examples: tuple[str, ...]
    layouts: Layouts
    since: str = "5.18"
    variants: tuple[str, ...] = ()
    hybrid: bool = False
    modality: Literal["image", "video"] = "video"
    handed_as: Literal["image", "video"] = "video"
    positions: Literal["1d", "mrope"] = "1d"
    batched_features: bool = False
    placeholder: str = "video_token_id"
    images_beside: bool = True
    offload: bool = True
    frames_as: Literal["pictures", "patches", "images"] | None = None
    crosses_frames: bool = False
    pads_samples: bool = False
    tower: Tower | None = None
    per_video: tuple[str, ...] = ()
    per_picture: tuple[str, ...] = ()
    encoders: Mapping[str, str] = field(
        default_factory=lambda: {"image": "get_image_features", "video": "get_video_features"}
    )
    input_names: tuple[str, ...] = ()
    also_called: Mapping[str, str] = field(default_factory=dict)

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
        with _own_weights(model.base_model):
            output = getattr(model.base_model, self.encoders[modality])(**known, return_dict=True)
        # a new output: one whose fields are set to None still holds them as keys
        kept = {name: output[name] for name in FEATURES if output.get(name) is not None}
        return (type(output) if "deepstack_features" in kept else BaseModelOutputWithPooling)(**kept)

    def own_names(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs under the names that the encoders take, which win where both are given, as in transformers."""
        named = {self.also_called[name]: value for name, value in inputs.items() if name in self.also_called}
        given = {name: value for name, value in inputs.items() if name not in self.also_called}
        return named | {name: value for name, value in given.items() if value is not None or name not in named}

    def has_video(self, inputs: Mapping[str, Any]) -> bool:
        """Whether these inputs bring the pixels of a video.

        Raises:
            ValueError: pixels of a family that reads frames as images, without :data:`FRAMES` to tell them apart, or
                under the name that such a family does not read.
        """
        if self.modality == "image" and inputs.get(RAW_PIXELS["video"]) is not None:
            raise ValueError(
                f"{self.name} reads no input {RAW_PIXELS['video']!r}: it takes frames as {RAW_PIXELS['image']}, and "
                f"how many there are as {FRAMES}"
            )
        if inputs.get(RAW_PIXELS[self.modality]) is None:
            return False
        if self.modality == "video":
            return True
        if inputs.get(FRAMES) is None:
            raise ValueError(
                f"{self.name} reads video frames as images, and its inputs do not tell them from stills: pass "
                f"{FRAMES}=[8] for one video of 8 frames, {FRAMES}=[] for none"
            )
        return len(frame_spans(inputs[FRAMES])) > 0

    def other_placeholder(self, model: PreTrainedModel) -> int | None:
        """The id of the placeholder of what stands beside videos, if the model has one."""
        other = {"video": "image_token_id", "image": "video_token_id"}[self.modality]
        found: int | None = getattr(model.config, other, None)
        return found if found != getattr(model.config, self.placeholder) else None

    def stock_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs without what only sharpv understands."""
        return {name: value for name, value in inputs.items() if name != FRAMES or self.modality != "image"}


def is_offloaded(module: nn.Module) -> bool:
    """Whether accelerate keeps this module's own weights elsewhere while it does not run."""
    return bool(getattr(getattr(module, "_hf_hook", None), "offload", False))


def _own_weights(module: nn.Module) -> AbstractContextManager[Any]:
    """Offloaded weights are there only while their module's ``forward`` runs, but an encoder is not ``forward``."""
    if not is_offloaded(module):
        return nullcontext()
    from accelerate.utils import align_module_device

    return align_module_device(module)
