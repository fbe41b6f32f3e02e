"""What Qwen2.5-VL and Qwen3-VL have in common in vLLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .encoding import encode_patches, some
from .model import PrunedModel, groups
from .processor import PrunedVideos
from .selection import Shown, shown_patches


class PrunedQwenVideos(PrunedVideos):
    """Mixin before a processor whose videos' patches lie end to end."""

    def videos(self, inputs: Mapping[str, Any]) -> list[Shown]:
        grids = inputs["video_grid_thw"]
        merge = self.info.get_hf_config().vision_config.spatial_merge_size
        pixels = inputs["pixel_values_videos"].split(grids.prod(dim=1).tolist())
        scale = self._scale(inputs["pixel_values_videos"])
        return [shown_patches(each, grid, merge, scale) for each, grid in zip(pixels, grids.tolist(), strict=True)]

    def _scale(self, pixels: Tensor) -> Tensor | None:
        """What vLLM multiplies bytes by on the device, where it normalises there, for each value of a patch."""
        if pixels.dtype != torch.uint8:
            return None
        processor = self.info.get_image_processor()  # vLLM goes by it for videos too
        of_channel = processor.rescale_factor / torch.tensor(processor.image_std)
        return of_channel.repeat_interleave(pixels.shape[1] // len(of_channel))


class PrunedQwen(PrunedModel):
    """Mixin before a model that encodes such patches."""

    visual: Any
    config: Any
    _process_video_input: Any

    def one_video(
        self, features: Tensor, grid: tuple[int, int, int], count: int, inputs: dict[str, Any], item: int
    ) -> Tensor:
        """A video's rows from its features; ``grid`` counts merged tokens, ``item`` is its place in the batch."""
        raise NotImplementedError

    def video_rows(self, inputs: dict[str, Any], counts: list[int], encoded: Sequence[Tensor] | None) -> list[Tensor]:
        grids, merge = inputs["video_grid_thw"], self.visual.spatial_merge_size
        patches = grids.prod(dim=1).tolist()
        pixels = inputs["pixel_values_videos"].split(patches)
        rows: list[Tensor] = []
        for part in groups([each // merge**2 for each in patches], self.encoder_budget):
            given = torch.cat(pixels[part])
            if encoded is not None and some(encoded[part]):
                together = encode_patches(self.visual, given, grids[part].tolist(), encoded[part])
                videos = together.split([each // merge**2 for each in patches[part]])
            else:
                video = {"type": "pixel_values_videos", "video_grid_thw": grids[part]}
                videos = self._process_video_input(video | {"pixel_values_videos": given})
            for features, (time, height, width) in zip(videos, grids[part].tolist(), strict=True):
                grid, item = (time, height // merge, width // merge), len(rows)
                rows.append(self.one_video(features, grid, counts[item], inputs, item))
        return rows

    def _postprocess_image_embeds_evs(self, image_embeds_split: Any, image_input: Any) -> Any:
        """In the place of vLLM's own positions of images: ours are known before."""
        return image_embeds_split


def grid_positions(time: int, height: int, width: int, factor: float = 1.0) -> Tensor:
    """Positions of a full grid, ``(3, T * H * W)``; ``factor`` is in positions per step of time, cut to whole ones."""
    indices = np.indices((time, height, width)).reshape(3, -1)
    indices[0] = (indices[0] * factor).astype(np.int64)
    return torch.from_numpy(indices)
