"""Families that read the frames of a video as images, and PerceptionLM, whose encoder serves both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    PerceptionLMConfig,
    PerceptionLMForConditionalGeneration,
    PreTrainedModel,
    Qwen2Config,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from .llava import Llava
from .parts import END, IMAGE, START, TEXT, VIDEO, Clip, Part, draw, pad


class _Frames(Llava):
    """Frames and still images of 6 x 6 patches, shuffled to 3 x 3 tokens; video_frames tells them apart."""

    placeholder = IMAGE

    def stack(self, images: list[list[Tensor]]) -> Tensor:
        raise NotImplementedError

    def inputs(self, prompts: list[list[Part]], side: str = "left") -> dict[str, Any]:
        rows, images, spans, done = [], [], [], 0
        for prompt in prompts:
            row: list[int] = []
            images.append([])
            for part in prompt:
                if isinstance(part, int):
                    row.append(part)
                    continue
                count = 1 if part.image else part.frames
                images[-1] += list(draw(part, 3, self.size, self.size, count))
                if not part.image:
                    spans.append((done, done + count))
                done += count
                for step in range(count):
                    row += [*([] if part.image else [20 + step]), START, *[IMAGE] * 9, END]
            rows.append(row)
        ids, mask = pad(rows, side)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if done:
            inputs["pixel_values"] = self.stack(images)
            whole = sum(stop - start for start, stop in spans) == done
            inputs["video_frames"] = [stop - start for start, stop in spans] if whole else spans
        return inputs

    def patch_columns(self, inputs: dict[str, Any]) -> Tensor:
        columns = inputs["input_ids"] == IMAGE
        image = (columns.flatten().cumsum(0) - 1).view_as(columns) // 9
        spans, done = [], 0
        for entry in inputs["video_frames"]:
            spans.append((done, done + entry) if isinstance(entry, int) else entry)
            done = spans[-1][1]
        return columns & torch.stack([(image >= start) & (image < stop) for start, stop in spans]).any(0)


class InternVL(_Frames):
    model_type = "internvl"

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = InternVLConfig(
            vision_config=dict(
                hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                image_size=[self.size] * 2, patch_size=[self.patch] * 2,
            ),
            text_config=Qwen2Config(**TEXT), image_token_id=IMAGE, image_seq_length=9, tie_word_embeddings=False,
            attn_implementation=attention,
        )  # fmt: skip
        return InternVLForConditionalGeneration(config)

    def stack(self, images: list[list[Tensor]]) -> Tensor:
        return torch.stack([image for of_sample in images for image in of_sample])


class SmolVLM(_Frames):
    """Samples are padded to the same number of images with black ones."""

    model_type = "smolvlm"

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = SmolVLMConfig(
            vision_config=dict(
                hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                image_size=self.size, patch_size=self.patch,
            ),
            text_config=LlamaConfig(**TEXT), image_token_id=IMAGE, scale_factor=2, tie_word_embeddings=False,
            attn_implementation=attention,
        )  # fmt: skip
        return SmolVLMForConditionalGeneration(config)

    def stack(self, images: list[list[Tensor]]) -> Tensor:
        most = max(map(len, images))
        black = torch.zeros(3, self.size, self.size)
        return torch.stack([torch.stack([*of, *[black] * (most - len(of))]) for of in images])


class PerceptionLM(Llava):
    """A timm tower with a class token that is not read, 6 x 6 patches pooled to 3 x 3 tokens."""

    model_type = "perception_lm"
    size = 84  # the tower's patches are of 14 pixels
    image_tokens = 9

    def build(self, attention: str) -> PreTrainedModel:
        torch.manual_seed(0)
        arguments = dict(
            embed_dim=32, depth=2, num_heads=2, img_size=(self.size, self.size), global_pool="", init_values=0.1,
            use_post_transformer_norm=False, ref_feat_shape=(6, 6),
        )  # fmt: skip
        config = PerceptionLMConfig(
            vision_config=dict(architecture="vit_pe_core_large_patch14_336", model_args=arguments),
            text_config=LlamaConfig(**TEXT), image_token_id=IMAGE, video_token_id=VIDEO, projector_pooling_ratio=2,
            vision_use_cls_token=True, tie_word_embeddings=False, attn_implementation=attention,
        )  # fmt: skip
        return PerceptionLMForConditionalGeneration(config)

    def video_tokens(self, part: Clip) -> int:
        return part.frames * 9

    def image_inputs(self, images: list[Tensor]) -> dict[str, Any]:
        return {"pixel_values": torch.stack(images)[:, None]}
