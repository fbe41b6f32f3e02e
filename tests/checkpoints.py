"""Small local checkpoints, model and processor, as the hub would give them."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

import tiny

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %} {{ part['text'] }}{% endif %}"
    "{% endfor %}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
SPECIAL = ["<|pad|>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|end|>"]


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as letters, special tokens at the ids of :mod:`tiny`, and everything within its vocabulary."""
    assert list(range(6)) == [tiny.PAD, tiny.IMAGE, tiny.VIDEO, tiny.START, tiny.END, tiny.EOS]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: len(SPECIAL) + index for index, letter in enumerate(letters)}
    base = Tokenizer(models.BPE(vocab={**dict(zip(SPECIAL, range(6))), **vocabulary}, merges=[]))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token=SPECIAL[0], eos_token=SPECIAL[5], padding_side="left",
        additional_special_tokens=SPECIAL[1:5],
    )  # fmt: skip


def write(directory: Path, model_type: str) -> Path:
    """A Qwen checkpoint with random weights and a working processor."""
    model = tiny.make(model_type)
    words = tokenizer()
    model.resize_token_embeddings(len(words))
    model.generation_config.suppress_tokens = list(range(6))
    sizes = {
        "patch_size": 4, "merge_size": 2, "temporal_patch_size": 2, "size": {"shortest_edge": 64, "longest_edge": 4096},
    }  # fmt: skip
    image = Qwen2VLImageProcessor(**sizes)
    if model_type == "qwen2_5_vl":
        processor = Qwen2_5_VLProcessor(image, words, Qwen2VLVideoProcessor(**sizes), chat_template=TEMPLATE)
    else:
        processor = Qwen3VLProcessor(image, words, Qwen3VLVideoProcessor(**sizes), chat_template=TEMPLATE)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory
