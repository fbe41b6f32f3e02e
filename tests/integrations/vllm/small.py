"""Small checkpoints with random weights of the three architectures, of shapes that vLLM's kernels take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = [
    "<|endoftext|>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>",
    "<|im_end|>",
]  # fmt: skip
PAD, IMAGE, VIDEO, START, END = range(5)
TEXT: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 8192, "tie_word_embeddings": False,
    "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
TOWER: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "patch_size": 8}
QWEN_TOWER = TOWER | {
    "depth": 2, "num_heads": 2, "out_hidden_size": 64, "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip
QWEN_IDS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}
PATCHES = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2, "do_sample_frames": False}
NAMES = ("llava_onevision", "qwen2_5_vl", "qwen3_vl")
STOCK = {"llava_onevision": "llava_onevision_as_4"}
"""The same checkpoint as vLLM's own models load it (docs/upstream/siglip-names.md), where that is another."""


def words(**named: str) -> PreTrainedTokenizerFast:
    """Bytes as letters behind Qwen's special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *letters])}
    base = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token=SPECIAL[0], eos_token=SPECIAL[0],
        additional_special_tokens=SPECIAL[1:], extra_special_tokens=named,
    )  # fmt: skip


def template(image: str, video: str) -> str:
    """A chat template in which images and videos are these strings."""
    return (
        "{% for m in messages %}{{ m['role'] }}:{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        f"{{% for p in m['content'] %}}{{% if p['type'] == 'video' %}}{video}{{% elif p['type'] == 'image' %}}{image}"
        "{% else %}{{ p['text'] }}{% endif %}{% endfor %}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )


QWEN_TEMPLATE = template("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>")


def _qwen(prefix: str, config: Any, processor: str) -> tuple[Any, Any]:
    tokenizer = words(
        image_token="<|image_pad|>", video_token="<|video_pad|>", vision_bos_token="<|vision_start|>",
        vision_eos_token="<|vision_end|>",
    )  # fmt: skip
    # vLLM normalises on the device, by the image processor's mean and deviation for both
    pixels = {
        "size": {"shortest_edge": 16 * 16, "longest_edge": 16 * 16 * 4096},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    made = getattr(transformers, f"{prefix}Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=8, merge_size=2, temporal_patch_size=2, **pixels),
        video_processor=getattr(transformers, processor)(**PATCHES, **pixels),
        tokenizer=tokenizer, chat_template=QWEN_TEMPLATE,
    )  # fmt: skip
    return getattr(transformers, f"{prefix}ForConditionalGeneration")(config), made


def qwen2_5_vl() -> tuple[Any, Any]:
    """Qwen2.5-VL: windows in its tower, time in positions."""
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}
    config = transformers.Qwen2_5_VLConfig(
        text_config=TEXT | {"vocab_size": 263, "rope_parameters": rope},
        vision_config=QWEN_TOWER | {"window_size": 32, "fullatt_block_indexes": [1], "tokens_per_second": 1},
        tie_word_embeddings=False, **QWEN_IDS,
    )  # fmt: skip
    return _qwen("Qwen2_5_VL", config, "Qwen2VLVideoProcessor")


def qwen3_vl() -> tuple[Any, Any]:
    """Qwen3-VL: time stamps between the frames, features for deeper layers."""
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    config = transformers.Qwen3VLConfig(
        text_config=TEXT | {"vocab_size": 263, "rope_parameters": rope, "head_dim": 32},
        vision_config=QWEN_TOWER | {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64},
        tie_word_embeddings=False, **QWEN_IDS,
    )  # fmt: skip
    return _qwen("Qwen3VL", config, "Qwen3VLVideoProcessor")


def llava_onevision() -> tuple[Any, Any]:
    """LLaVA-OneVision: a newline after each video."""
    vision = transformers.SiglipVisionConfig(
        **TOWER, num_hidden_layers=2, num_attention_heads=2, image_size=48, vision_use_head=False
    )
    config = transformers.LlavaOnevisionConfig(
        vision_config=vision, text_config=transformers.Qwen2Config(**TEXT, vocab_size=263),
        image_token_index=IMAGE, video_token_index=VIDEO, vision_feature_layer=-1,
        vision_feature_select_strategy="full", image_grid_pinpoints=[[48, 48]], tie_word_embeddings=False,
    )  # fmt: skip
    square = {"size": {"height": 48, "width": 48}}
    processor = transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(image_grid_pinpoints=[[48, 48]], **square),
        video_processor=transformers.LlavaOnevisionVideoProcessor(do_sample_frames=False, **square),
        tokenizer=words(image_token="<|image_pad|>", video_token="<|video_pad|>"),
        num_image_tokens=36, vision_feature_select_strategy="full", image_token="<|image_pad|>",
        video_token="<|video_pad|>", chat_template=template("<|image_pad|>", "<|video_pad|>"),
    )  # fmt: skip
    model = transformers.LlavaOnevisionForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.image_newline)
    return model, processor


def write_medium(folder: Path) -> Path:
    """A Qwen2.5-VL whose tower and language model do work in the proportion of the 7B's: for benchmarks."""
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]}
    wide = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12,
            "num_key_value_heads": 2}  # fmt: skip
    tower = {"depth": 4, "hidden_size": 384, "num_heads": 6, "intermediate_size": 1024, "out_hidden_size": 768}
    config = transformers.Qwen2_5_VLConfig(
        text_config=TEXT | wide | {"vocab_size": 263, "rope_parameters": rope},
        vision_config=QWEN_TOWER | tower | {"window_size": 56, "fullatt_block_indexes": [1, 3], "tokens_per_second": 2},
        tie_word_embeddings=False, **QWEN_IDS,
    )  # fmt: skip
    model, processor = _qwen("Qwen2_5_VL", config, "Qwen2VLVideoProcessor")
    model.float().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write(folder: Path, name: str) -> Path:
    """A checkpoint and its processor, of weights large enough for tokens to differ."""
    torch.manual_seed(0)
    model, processor = globals()[name.removesuffix("_as_4")]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.float().save_pretrained(folder)
    processor.save_pretrained(folder)
    if name.endswith("_as_4"):
        rename_as_4(folder)
    return folder


def rename_as_4(folder: Path) -> None:
    """Name the parts of a SigLIP tower as transformers 4 and the checkpoints on the hub do."""
    file = folder / "model.safetensors"
    weights = {key.replace("vision_tower.", "vision_tower.vision_model."): w for key, w in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
