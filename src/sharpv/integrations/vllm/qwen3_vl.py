"""Qwen3-VL in vLLM with its videos pruned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.qwen3_vl import (
    Qwen3VLDummyInputsBuilder,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMultiModalProcessor,
    Qwen3VLProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from .positions import Medium, channels
from .qwen import PrunedQwen, PrunedQwenVideos, grid_positions


class Processor(PrunedQwenVideos, Qwen3VLMultiModalProcessor):
    """vLLM's processor, with shorter videos."""


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Qwen3VLProcessingInfo, dummy_inputs=Qwen3VLDummyInputsBuilder)
class PrunedQwen3VL(PrunedQwen, Qwen3VLForConditionalGeneration):
    """vLLM's model; a frame is a time stamp, a start, a grid and an end, all of which are rows of the video."""

    def one_video(
        self, features: Tensor, grid: tuple[int, int, int], count: int, inputs: dict[str, Any], item: int
    ) -> Tensor:
        time, height, width = grid
        # behind the first visual_dim channels are those of the deeper layers, which no method reads or merges
        kept, first = self.choose(features[:, : self.visual_dim].reshape(time, height * width, -1), count)
        mask = torch.zeros(len(features), dtype=torch.bool, device=features.device)
        mask[kept] = True
        rows: Tensor = self._create_final_video_embeddings(
            video_embeddings=torch.cat([first, features[kept, self.visual_dim :]], dim=1),
            num_tokens_per_frame=mask.view(time, -1).sum(dim=1).tolist(),
            timestamps=inputs["timestamps"][item],
            video_grid_thw=inputs["video_grid_thw"][item].tolist(),
            retention_mask=mask,
        )
        return rows

    def _get_expanded_positions(
        self,
        device: Any,
        seq_len: int,
        video_grid_thw: list[int],
        num_tokens_per_frame: list[int],
        timestamps: Any,
        is_video_embed: Tensor,
        is_vision_start: Tensor,
        retention_mask: Tensor,
    ) -> Tensor:
        """What vLLM appends to a video's rows: our channels in the place of its own."""
        leads, done = [], 0
        for start, kept in zip(is_vision_start.nonzero().flatten().tolist(), num_tokens_per_frame, strict=True):
            leads.append(start + 1 - done)
            done = start + 1 + kept + 1
        _, height, width = (each // self.visual.spatial_merge_size for each in video_grid_thw)
        relative, is_visual = frames_positions(leads, height, width)
        stays = ~is_visual
        stays[is_visual] = retention_mask.cpu()
        return channels(relative[:, stays], lead=leads[0]).to(device)

    def media(self, ids: list[int], features: Any) -> Iterator[Medium]:
        merge = self.visual.spatial_merge_size
        for feature in features:
            offset, length = feature.mm_position.offset, feature.mm_position.length
            _, height, width = (each // merge for each in feature.data[f"{feature.modality}_grid_thw"].data.tolist())
            if feature.modality == "image":
                yield Medium(offset, length, grid_positions(1, height, width))
            else:
                leads = self._leads(ids[offset : offset + length])
                yield Medium(offset, length, frames_positions(leads, height, width)[0])

    def _leads(self, ids: Sequence[int]) -> list[int]:
        """Rows before each frame's visual tokens."""
        leads, lead = [], 0
        for token in ids:
            lead = 0 if token == self.config.vision_end_token_id else lead + 1
            if token == self.config.vision_start_token_id:
                leads.append(lead)
        return leads


def frames_positions(leads: Sequence[int], height: int, width: int) -> tuple[Tensor, Tensor]:
    """Positions of all rows of a full video, ``(3, rows)``, and which of them are visual tokens, ``(rows,)`` bool.

    Each frame is ``lead`` rows of text, a grid and one more row of text.
    """
    grid = grid_positions(1, height, width)
    parts: list[Tensor] = []
    visual: list[Tensor] = []
    upcoming = 0
    for lead in leads:
        before = torch.arange(upcoming, upcoming + lead).expand(3, -1)
        upcoming += lead
        after = torch.full((3, 1), upcoming + max(height, width))
        parts += [before, grid + upcoming, after]
        visual += [torch.zeros(lead), torch.ones(height * width), torch.zeros(1)]
        upcoming += max(height, width) + 1
    return torch.cat(parts, dim=1), torch.cat(visual).bool()
