"""Tiny random-weight models of every family, and prompts for them, built in code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    SiglipVisionConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

PAD, IMAGE, VIDEO, START, END, EOS = 0, 1, 2, 3, 4, 5
VOCABULARY = 64
LAYERS = 4
HIGH_M = 0.985
"""A memory threshold that some layers of every tiny model fall below: random layers change their input little."""
TEXT = dict(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=4096, pad_token_id=PAD, bos_token_id=None, eos_token_id=EOS,
)  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """A random clip, a quarter of which changes from frame to frame; height and width in tokens."""

    seed: int
    frames: int = 4
    height: int = 3
    width: int = 3
    image: bool = False


Part = int | Clip
"""A piece of a prompt: a text token id, or a clip."""


def _pixels(clip: Clip, channels: int, height: int, width: int, frames: int) -> Tensor:
    draw = torch.Generator().manual_seed(clip.seed)
    still = torch.randn(1, channels, height, width, generator=draw).expand(frames, -1, -1, -1).clone()
    moving = torch.randn(frames, channels, height, width, generator=draw)
    change = torch.rand(frames, 1, height, width, generator=draw) < 0.25
    return torch.where(change, moving, still)


def _pad(rows: list[list[int]], side: str = "left") -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), PAD), torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[index, place], mask[index, place] = torch.tensor(row), 1
    return ids, mask


class _Llava:
    """Frames of one fixed size, stacked to ``(videos, frames, 3, size, size)``."""

    size, patch = 24, 4
    image_tokens = 0

    def video_tokens(self, part: Clip) -> int:
        raise NotImplementedError

    def image_inputs(self, images: list[Tensor]) -> dict[str, Any]:
        return {"pixel_values": torch.stack(images)}

    def inputs(self, prompts: list[list[Part]], side: str = "left") -> dict[str, Any]:
        rows, videos, images = [], [], []
        for prompt in prompts:
            row = []
            for part in prompt:
                if isinstance(part, int):
                    row.append(part)
                elif part.image:
                    row += [IMAGE] * self.image_tokens
                    images.append(_pixels(part, 3, self.size, self.size, 1)[0])
                else:
                    row += [VIDEO] * self.video_tokens(part)
                    videos.append(_pixels(part, 3, self.size, self.size, part.frames))
            rows.append(row)
        ids, mask = _pad(rows, side)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if videos:
            inputs["pixel_values_videos"] = torch.stack(videos)
        return {**inputs, **(self.image_inputs(images) if images else {})}


class LlavaOneVision(_Llava):
    """Frames of 6 x 6 patches pooled to 3 x 3 tokens, one newline after each video."""

    model_type = "llava_onevision"
    image_tokens = 36 + 6 * 7  # base view, and one crop of 6 x 6 patches, each row closed by a newline

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        vision = SiglipVisionConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=self.size,
            patch_size=self.patch, vision_use_head=False,
        )  # fmt: skip
        config = LlavaOnevisionConfig(
            vision_config=vision, text_config=Qwen2Config(**TEXT), image_token_index=IMAGE, video_token_index=VIDEO,
            vision_feature_layer=-1, vision_feature_select_strategy="full", image_grid_pinpoints=[[24, 24]],
            tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        model = LlavaOnevisionForConditionalGeneration(config)
        torch.nn.init.normal_(model.model.image_newline)
        return model

    def video_tokens(self, part: Clip) -> int:
        return part.frames * 9 + 1

    def image_inputs(self, images: list[Tensor]) -> dict[str, Any]:
        crops = torch.stack([image.expand(2, -1, -1, -1) for image in images])
        return {"pixel_values": crops, "image_sizes": torch.tensor([[self.size, self.size]] * len(images))}


class LlavaNextVideo(_Llava):
    """CLIP without its class token, 6 x 6 patches pooled to 3 x 3 tokens."""

    model_type = "llava_next_video"
    image_tokens = 36 + 6 * 7

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = LlavaNextVideoConfig(
            vision_config=_clip(self.size, self.patch), text_config=LlamaConfig(**TEXT), image_token_index=IMAGE,
            video_token_index=VIDEO, vision_feature_layer=-2, vision_feature_select_strategy="default",
            image_grid_pinpoints=[[24, 24]], spatial_pool_stride=2, spatial_pool_mode="average",
            tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        model = LlavaNextVideoForConditionalGeneration(config)
        torch.nn.init.normal_(model.model.image_newline)
        return model

    def video_tokens(self, part: Clip) -> int:
        return part.frames * 9

    image_inputs = LlavaOneVision.image_inputs


class VideoLlava(_Llava):
    """The class token of each frame is read too: 1 + 3 x 3 tokens."""

    model_type = "video_llava"
    patch = 8
    image_tokens = 9  # of an image the class token is not read

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = VideoLlavaConfig(
            vision_config=_clip(self.size, self.patch), text_config=LlamaConfig(**TEXT), image_token_index=IMAGE,
            video_token_index=VIDEO, vision_feature_layer=-2, vision_feature_select_strategy="default",
            tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        return VideoLlavaForConditionalGeneration(config)

    def video_tokens(self, part: Clip) -> int:
        return part.frames * 10


def _clip(size: int, patch: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, image_size=size,
        patch_size=patch, projection_dim=32,
    )  # fmt: skip


class _Qwen:
    patch, merge, temporal = 4, 2, 2

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
        ids, mask = _pad(rows, side)
        types = torch.where(ids == IMAGE, 1, torch.where(ids == VIDEO, 2, 0))
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": types}
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
        pixels = _pixels(part, 3, height * self.patch, width * self.patch, steps)
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


FAMILIES = {
    family.model_type: family
    for family in (
        LlavaOneVision(), LlavaNextVideo(), VideoLlava(), Qwen2VL(), Qwen25VL(), Qwen3VL(), Qwen3VLMoe(),
    )
}  # fmt: skip


def make(model_type: str, attention: str = "sdpa") -> PreTrainedModel:
    """A tiny model with weights large enough that logits differ when a token is dropped."""
    model = FAMILIES[model_type].build(attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    model.generation_config.pad_token_id = PAD
    model.generation_config.eos_token_id = None
    model.generation_config.suppress_tokens = [PAD, IMAGE, VIDEO, START, END]
    return model.eval()
