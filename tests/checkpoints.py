"""Small local checkpoints of every family, model and processor, as the hub would give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, ProcessorMixin

import tiny

SPECIAL = ["<|pad|>", "<|image|>", "<|video|>", "<|start|>", "<|end|>", "<|eos|>"]
"""At the ids of :mod:`tiny`."""
QWEN = {
    "patch_size": 4, "merge_size": 2, "temporal_patch_size": 2, "size": {"shortest_edge": 64, "longest_edge": 4096},
}  # fmt: skip
SQUARE = {"size": {"height": 24, "width": 24}}
CROPPED = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}


def template(image: str, video: str) -> str:
    """A chat template in which a part of a message is one of these strings, or its text."""
    return (
        "{% for message in messages %}{{ message['role'] }}:{% for part in message['content'] %}"
        f"{{% if part['type'] == 'video' %}}{video}{{% elif part['type'] == 'image' %}}{image}"
        "{% else %} {{ part['text'] }}{% endif %}"
        "{% endfor %}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )


def tokenizer(**tokens: str) -> PreTrainedTokenizerFast:
    """Bytes as letters; ``tokens`` name what the processor asks the tokenizer for, after or among the special ones."""
    assert list(range(6)) == [tiny.PAD, tiny.IMAGE, tiny.VIDEO, tiny.START, tiny.END, tiny.EOS]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: len(SPECIAL) + index for index, letter in enumerate(letters)}
    base = Tokenizer(models.BPE(vocab={**dict(zip(SPECIAL, range(6))), **vocabulary}, merges=[]))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    more = [token for token in tokens.values() if token not in SPECIAL]
    named = {"image_token": "<|image|>", "video_token": "<|video|>", **tokens}
    return PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token=SPECIAL[0], eos_token=SPECIAL[5], padding_side="left",
        additional_special_tokens=[*SPECIAL[1:5], *more], extra_special_tokens=named,
    )  # fmt: skip


def _qwen(name: str, image: str, video: str, start: str = "<|start|>", end: str = "<|end|>", **tokens: str) -> Any:
    whole = template(f"{start}<|image|>{end}", f"{start}<|video|>{end}")
    return _processor(name, tokenizer(vision_bos_token="<|start|>", vision_eos_token="<|end|>", **tokens),
                      (image, QWEN), (video, QWEN), chat_template=whole)  # fmt: skip


def _processor(
    name: str, words: Any, image: tuple[str, dict[str, Any]], video: tuple[str, dict[str, Any]], **options: Any
) -> ProcessorMixin:
    parts = {"image_processor": image, "video_processor": video}
    made = {part: getattr(transformers, cls)(**arguments) for part, (cls, arguments) in parts.items()}
    return getattr(transformers, name)(tokenizer=words, **made, **options)


def _llava(name: str, image: str, video: str, arguments: dict[str, Any], **options: Any) -> ProcessorMixin:
    pinpoints = {"image_grid_pinpoints": [[24, 24]]} if "Next" in name or "Onevision" in name else {}
    return _processor(name, tokenizer(), (image, {**arguments, **pinpoints}), (video, arguments),
                      chat_template=template("<|image|>", "<|video|>"), **options)  # fmt: skip


PROCESSORS: dict[str, Callable[[], ProcessorMixin]] = {
    "llava_onevision": lambda: _llava(
        "LlavaOnevisionProcessor", "LlavaOnevisionImageProcessor", "LlavaOnevisionVideoProcessor", SQUARE,
        num_image_tokens=36, vision_feature_select_strategy="full",
    ),
    "llava_next_video": lambda: _llava(
        "LlavaNextVideoProcessor", "LlavaNextImageProcessor", "LlavaNextVideoVideoProcessor", CROPPED,
        patch_size=4, vision_feature_select_strategy="default", num_additional_image_tokens=1,
    ),
    "video_llava": lambda: _llava(
        "VideoLlavaProcessor", "VideoLlavaImageProcessor", "VideoLlavaVideoProcessor", CROPPED,
        patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
    ),
    "qwen2_vl": lambda: _qwen("Qwen2VLProcessor", "Qwen2VLImageProcessor", "Qwen2VLVideoProcessor"),
    "qwen2_5_vl": lambda: _qwen("Qwen2_5_VLProcessor", "Qwen2VLImageProcessor", "Qwen2VLVideoProcessor"),
    "qwen3_vl": lambda: _qwen("Qwen3VLProcessor", "Qwen2VLImageProcessor", "Qwen3VLVideoProcessor"),
    "qwen3_vl_moe": lambda: _qwen("Qwen3VLProcessor", "Qwen2VLImageProcessor", "Qwen3VLVideoProcessor"),
    "qwen3_5": lambda: _qwen("Qwen3VLProcessor", "Qwen2VLImageProcessor", "Qwen3VLVideoProcessor"),
    "glm4v": lambda: _processor(
        "Glm4vProcessor",
        tokenizer(frame="<|begin_of_image|>", frame_end="<|end_of_image|>", first="<|begin_of_video|>",
                  last="<|end_of_video|>"),
        ("Glm4vImageProcessor", QWEN), ("Glm4vVideoProcessor", {**QWEN, "max_image_size": {"longest_edge": 4096}}),
        chat_template=template("<|begin_of_image|><|image|><|end_of_image|>",
                               "<|begin_of_video|><|video|><|end_of_video|>"),
    ),
    "video_llama_3": lambda: _processor(
        "VideoLlama3Processor", tokenizer(), ("VideoLlama3ImageProcessor", {**QWEN, "temporal_patch_size": 1}),
        ("VideoLlama3VideoProcessor", {**QWEN, "temporal_patch_size": 1}),
        chat_template=template("<|image|>", "<|video|>"),
    ),
    "internvl": lambda: _processor(
        "InternVLProcessor",
        tokenizer(start_image_token="<|start|>", end_image_token="<|end|>", context_image_token="<|image|>"),
        ("GotOcr2ImageProcessor", {**SQUARE, "crop_to_patches": False}), ("InternVLVideoProcessor", SQUARE),
        image_seq_length=9, chat_template=template("<|image|>", "<|video|>"),
    ),
    "smolvlm": lambda: _processor(
        "SmolVLMProcessor",
        # its processor has a chat template of its own for videos, with this placeholder
        tokenizer(video_token="<video>", fake_image_token="<|start|>", global_image_token="<|end|>",
                  end_of_utterance_token="<|eos|>"),
        ("SmolVLMImageProcessor", {"size": {"longest_edge": 24}, "max_image_size": {"longest_edge": 24}}),
        ("SmolVLMVideoProcessor", {"size": {"longest_edge": 24}, "max_image_size": {"longest_edge": 24},
                                   "num_frames": 8, "fps": 1}),
        image_seq_len=9, chat_template=template("<|image|>", "<|video|>"),
    ),
    "pllava": lambda: _processor(
        "LlavaNextVideoProcessor", tokenizer(image_token="<|video|>", video_token="<|image|>"),
        ("LlavaNextImageProcessor", {**CROPPED, "image_grid_pinpoints": [[24, 24]]}),
        ("LlavaNextVideoVideoProcessor", CROPPED), patch_size=4, vision_feature_select_strategy="default",
        chat_template=template("<|image|>", "<|image|>"),
    ),
    "perception_lm": lambda: _processor(
        "PerceptionLMProcessor", tokenizer(),
        ("PerceptionLMImageProcessor", {"tile_size": 84, "vision_input_type": "vanilla"}),
        ("PerceptionLMVideoProcessor", {"size": {"height": 84, "width": 84}}),
        patch_size=14, pooling_ratio=2, chat_template=template("<|image|>", "<|video|>"),
    ),
}  # fmt: skip


def write(directory: Path, model_type: str) -> Path:
    """A checkpoint with random weights and a working processor."""
    model, processor = tiny.make(model_type), PROCESSORS[model_type]()
    words = processor.tokenizer
    model.resize_token_embeddings(len(words))
    model.generation_config.suppress_tokens = [*range(6), *words.all_special_ids]
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory
