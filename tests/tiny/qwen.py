"""The Qwen-VL line and its relatives: patch-merging towers of native resolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
)

from .parts import END, IMAGE, START, TEXT, VIDEO, Clip, Part, draw, pad


class _Qwen:
    patch, merge, temporal = 4, 2, 2
    placeholder = VIDEO
    hybrid = False
    images_beside = True

    def patch_columns(self, inputs: dict[str, Any]) -> Tensor:
        """(B, L) bool: placeholders of video patches."""
        return inputs["input_ids"] == self.placeholder

    def tokens_of_frames(self, part: Clip) -> int:
        """Placeholders of a video's patches."""
        return part.frames * part.height * part.width

    def types(self, ids: Tensor) -> Tensor:
        """mm_token_type_ids: 0 text, 1 image, 2 video."""
        return torch.where(ids == self.placeholder, 2, torch.where(ids == IMAGE, 1, 0))

    def _frame(self, part: Clip, step: int) -> list[int]:
        raise NotImplementedError

    def inputs(self, prompts: list[list[Part]], side: str = "left") -> dict[str, Any]:
        rows, patches, grids = [], {True: [], False: []}, {True: [], False: []}
        for prompt in prompts:
            row = []
            for part in prompt:
                if isinstance(part, int):
                    row.append(part)
                    continue
                steps = 1 if part.image else part.frames
                grids[part.image].append([steps, part.height * self.merge, part.width * self.merge])
                patches[part.image].append(self._patches(part, steps))
                if part.image:
                    row += [START, *[IMAGE] * (part.height * part.width), END]
                else:
                    row += self._video_tokens(part)
            rows.append(row)
        ids, mask = pad(rows, side)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": self.types(ids)}
        for image, pixels, grid in (
            (False, "pixel_values_videos", "video_grid_thw"),
            (True, "pixel_values", "image_grid_thw"),
        ):
            if grids[image]:
                inputs[pixels], inputs[grid] = torch.cat(patches[image]), torch.tensor(grids[image])
        return inputs

    def _patches(self, part: Clip, steps: int) -> Tensor:
        """``(steps * h * w, channels * temporal * patch * patch)``, merge groups together, as the processor does."""
        height, width = part.height * self.merge, part.width * self.merge
        pixels = draw(part, 3, height * self.patch, width * self.patch, steps)
        blocks = pixels.view(steps, 3, part.height, self.merge, self.patch, part.width, self.merge, self.patch)
        blocks = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
        blocks = blocks.expand(-1, -1, -1, -1, -1, -1, self.temporal, -1, -1)
        return blocks.reshape(steps * height * width, -1)

    def _video_tokens(self, part: Clip) -> list[int]:
        return [START, *[VIDEO] * (part.frames * part.height * part.width), END]


class Qwen25VL(_Qwen):
    model_type = "qwen2_5_vl"

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = Qwen2_5_VLConfig(
            text_config=dict(TEXT, rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 3, 3])),
            vision_config=dict(
                depth=2, hidden_size=32, intermediate_size=48, num_heads=2, patch_size=self.patch, out_hidden_size=64,
                spatial_merge_size=self.merge, temporal_patch_size=self.temporal, window_size=16,
                fullatt_block_indexes=[1],
            ),
            image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END,
            tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        return Qwen2_5_VLForConditionalGeneration(config)

    def inputs(self, prompts: list[list[Part]], side: str = "left") -> dict[str, Any]:
        inputs = super().inputs(prompts, side)
        if "video_grid_thw" in inputs:
            inputs["second_per_grid_ts"] = [1.0] * len(inputs["video_grid_thw"])
        return inputs


class Qwen2VL(_Qwen):
    model_type = "qwen2_vl"

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = Qwen2VLConfig(
            text_config=dict(TEXT, rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 3, 3])),
            vision_config=dict(
                depth=2, embed_dim=32, mlp_ratio=2, num_heads=2, patch_size=self.patch, hidden_size=64,
                spatial_merge_size=self.merge, temporal_patch_size=self.temporal,
            ),
            image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END,
            tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        return Qwen2VLForConditionalGeneration(config)


class Qwen3VL(_Qwen):
    """Timestamps stand as text between the frames; deepstack features enter two early layers."""

    model_type = "qwen3_vl"
    config_class: Any = Qwen3VLConfig
    model_class: Any = Qwen3VLForConditionalGeneration
    experts: dict[str, Any] = {}

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = self.config_class(
            text_config=dict(
                TEXT, head_dim=16, **self.experts,
                rope_parameters=dict(
                    rope_type="default", rope_theta=1e4, mrope_section=[2, 3, 3], mrope_interleaved=True
                ),
            ),
            vision_config=dict(
                depth=2, hidden_size=32, intermediate_size=48, num_heads=2, patch_size=self.patch, out_hidden_size=64,
                spatial_merge_size=self.merge, temporal_patch_size=self.temporal, deepstack_visual_indexes=[0, 1],
                num_position_embeddings=64,
            ),
            image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END,
            tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        return self.model_class(config)

    def _video_tokens(self, part: Clip) -> list[int]:
        frame = [VIDEO] * (part.height * part.width)
        return [token for step in range(part.frames) for token in (20 + step, START, *frame, END)]


class Qwen3VLMoe(Qwen3VL):
    model_type = "qwen3_vl_moe"
    config_class = Qwen3VLMoeConfig
    model_class = Qwen3VLMoeForConditionalGeneration
    experts = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48, decoder_sparse_step=1)


class Qwen35(Qwen3VL):
    """Every other layer is linear attention, and there is no deepstack."""

    model_type = "qwen3_5"
    config_class = Qwen3_5Config
    model_class = Qwen3_5ForConditionalGeneration
    hybrid = True

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = self.config_class(
            text_config=dict(
                TEXT, head_dim=16, **self.experts, layer_types=["linear_attention", "full_attention"] * 2,
                linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
                rope_parameters=dict(
                    rope_type="default", rope_theta=1e4, mrope_section=[2, 3, 3], mrope_interleaved=True,
                    partial_rotary_factor=1.0,
                ),
            ),
            vision_config=dict(
                depth=2, hidden_size=32, intermediate_size=48, num_heads=2, patch_size=self.patch, out_hidden_size=64,
                spatial_merge_size=self.merge, temporal_patch_size=self.temporal, num_position_embeddings=64,
            ),
            image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END,
            tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        return self.model_class(config)


class Qwen35Moe(Qwen35):
    model_type = "qwen3_5_moe"
    config_class = Qwen3_5MoeConfig
    model_class = Qwen3_5MoeForConditionalGeneration
    experts = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48, shared_expert_intermediate_size=48)


class Glm4v(_Qwen):
    """Images and videos share a placeholder; the time of each frame stands behind it as text."""

    model_type = "glm4v"
    config_class: Any = Glm4vConfig
    model_class: Any = Glm4vForConditionalGeneration
    experts: dict[str, Any] = {}
    placeholder = IMAGE
    images_beside = False

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = self.config_class(
            text_config=dict(
                TEXT, **self.experts,
                rope_parameters=dict(
                    rope_type="default", rope_theta=1e4, mrope_section=[2, 3, 3], partial_rotary_factor=1.0
                ),
            ),
            vision_config=dict(
                depth=2, hidden_size=32, intermediate_size=48, num_heads=2, patch_size=self.patch, out_hidden_size=64,
                spatial_merge_size=self.merge, temporal_patch_size=self.temporal, image_size=24,
            ),
            image_token_id=IMAGE, video_token_id=VIDEO, image_start_token_id=START, image_end_token_id=END,
            video_start_token_id=60, video_end_token_id=61, tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        return self.model_class(config)

    def _video_tokens(self, part: Clip) -> list[int]:
        frame = [START, *[IMAGE] * (part.height * part.width), END]
        return [60, *[token for step in range(part.frames) for token in (*frame, 20 + step)], 61]


class Glm46V(Glm4v):
    model_type = "glm46v"
    config_class = Glm46VConfig
    model_class = Glm46VForConditionalGeneration


class Glm4vMoe(Glm4v):
    model_type = "glm4v_moe"
    config_class = Glm4vMoeConfig
    model_class = Glm4vMoeForConditionalGeneration
    experts = dict(
        n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=48, n_shared_experts=1, n_group=1,
        topk_group=1, first_k_dense_replace=1, head_dim=16,
    )  # fmt: skip


class VideoLlama3(_Qwen):
    """Its processor leaves tokens out: they have features, but no placeholder. Frames stand behind their times."""

    model_type = "video_llama_3"
    temporal = 1
    image_merge = 1

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = VideoLlama3Config(
            text_config=Qwen2Config(**TEXT),
            vision_config=dict(
                hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, patch_size=self.patch
            ),
            image_token_id=IMAGE, video_token_id=VIDEO, tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        return VideoLlama3ForConditionalGeneration(config)

    def present(self, part: Clip) -> Tensor:
        """(T, N) bool: the first frame and about two thirds of the others."""
        there = torch.rand(part.frames, part.height * part.width, generator=torch.Generator().manual_seed(part.seed))
        return (there < 0.67) | (torch.arange(part.frames) == 0)[:, None]

    def tokens_of_frames(self, part: Clip) -> int:
        return int(self.present(part).sum())

    def inputs(self, prompts: list[list[Part]], side: str = "left") -> dict[str, Any]:
        inputs = super().inputs(prompts, side)
        del inputs["mm_token_type_ids"]
        clips = [part for prompt in prompts for part in prompt if isinstance(part, Clip)]
        for name in ("image", "video"):
            if f"{name}_grid_thw" in inputs:
                inputs[f"{name}_merge_sizes"] = torch.full((len(inputs[f"{name}_grid_thw"]),), self.merge)
        if "video_grid_thw" in inputs:
            inputs["video_compression_mask"] = torch.cat([self.present(c).flatten() for c in clips if not c.image])
        return inputs

    def _video_tokens(self, part: Clip) -> list[int]:
        counts = self.present(part).sum(1).tolist()
        return [token for step, count in enumerate(counts) for token in (20 + step, *[VIDEO] * count)]
