"""Where a family's vision tower can be cut, as data: its layers, and how its patches become visual tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from transformers import PreTrainedModel

Pooling = Literal["average", "bilinear"]


@dataclass(frozen=True)
class Tower:
    """A vision tower that looks at one frame at a time through layers of transformers' own attention.

    Attributes:
        name: the attribute of the base model that holds it.
        layers: in the tower, the list of layers.
        taps: in the tower, a list of modules that read states between layers (deepstack), if there are any.
        pooling: how tokens come from patches: as the mean of those that they cover (merging, shuffling and pooling), or
            bilinear.
        windows: most layers look at one window of a frame at a time, and patches lie by window.
    """

    name: str
    layers: str
    taps: str | None = None
    pooling: Pooling = "average"
    windows: bool = False

    def module(self, model: PreTrainedModel) -> nn.Module:
        """The tower."""
        return model.base_model.get_submodule(self.name)

    def parts(self, model: PreTrainedModel) -> tuple[list[nn.Module], list[nn.Module]]:
        """Its layers, and its taps."""
        tower = self.module(model)
        body = getattr(tower, "vision_model", tower)  # older transformers wrap it
        return list(body.get_submodule(self.layers).children()), (
            list(body.get_submodule(self.taps).children()) if self.taps else []
        )

    def grid(self, model: PreTrainedModel, frames: Tensor, beside: Mapping[str, Tensor]) -> tuple[int, int]:
        """Rows and columns of the patches of a video's frames, pictures ``(T, C, H, W)`` or patches."""
        if frames.ndim == 3:
            _, height, width = beside["video_grid_thw"][0].tolist()
            return height, width
        patch = model.config.vision_config.patch_size
        height, width = patch if isinstance(patch, (tuple, list)) else (patch, patch)
        return frames.shape[-2] // height, frames.shape[-1] // width
