"""Qwen2.5-VL in vLLM with its videos pruned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from .positions import Medium, with_positions
from .qwen import PrunedQwen, PrunedQwenVideos, grid_positions


class Processor(PrunedQwenVideos, Qwen2_5_VLMultiModalProcessor):
    """vLLM's processor, with shorter videos."""


@MULTIMODAL_REGISTRY.register_processor(
    Processor, info=Qwen2_5_VLProcessingInfo, dummy_inputs=Qwen2_5_VLDummyInputsBuilder
)
class PrunedQwen2_5VL(PrunedQwen, Qwen2_5_VLForConditionalGeneration):  # noqa: N801 - vLLM's spelling
    """vLLM's model; a video's rows are flat, and its time may advance by more than one position a frame."""

    def one_video(
        self, features: Tensor, grid: tuple[int, int, int], count: int, inputs: dict[str, Any], item: int
    ) -> Tensor:
        kept, rows = self.choose(features.view(grid[0], grid[1] * grid[2], -1), count)
        # not cut to whole seconds first, as vLLM's own pruning does (docs/upstream/whole-seconds.md)
        seconds = float(torch.as_tensor(inputs["second_per_grid_ts"]).flatten()[item])
        relative = grid_positions(*grid, factor=seconds * self.config.vision_config.tokens_per_second)
        return with_positions(rows, relative.to(features.device)[:, kept])

    def media(self, ids: list[int], features: Any) -> Iterator[Medium]:
        for feature, (offset, *grid) in zip(features, self.iter_mm_grid_thw(features), strict=True):
            yield Medium(offset, feature.mm_position.length, grid_positions(*grid))
