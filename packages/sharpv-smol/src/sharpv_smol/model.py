"""The smol model: transformers' own LLaVA-OneVision from pocket's tower, a standard projector and SmolLM2.

What training adds to the language model are LoRA deltas (https://arxiv.org/abs/2106.09685), W + SCALE * B A for the
seven linear maps of every layer. :func:`deltas` takes everything that is smol's own out of a model, :func:`join` puts
it into a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sharpv.pocket.drawing import SIZE
from sharpv.pocket.tokens import PATCH

from .language import CHAT_TEMPLATE, IMAGE, VIDEO, load_language, load_tokenizer

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

RANK = 16
SCALE = 2.0
OWN = ("vision_tower", "multi_modal_projector", "image_newline")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LoRA(nn.Module):
    """A frozen linear map and its delta; B starts as zero, so the model starts as it was."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.a = nn.Parameter(torch.randn(RANK, linear.in_features) * linear.in_features**-0.5)
        self.b = nn.Parameter(torch.zeros(linear.out_features, RANK))
        self.active = True

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return self.linear(x)
        a, b = self.a.to(x.dtype), (SCALE * self.b).to(x.dtype)
        return self.linear(x) + nn.functional.linear(nn.functional.linear(x, a), b)


def build(pocket: LlavaOnevisionForConditionalGeneration) -> LlavaOnevisionForConditionalGeneration:
    """Pocket's vision tower before SmolLM2, float32; the projector between them is new (torch's generator draws it)."""
    from transformers import LlamaConfig, LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    language, words = load_language(), load_tokenizer()
    language.resize_token_embeddings(len(words), mean_resizing=False)
    with torch.no_grad():  # features stand in the place of these two, and they are never generated
        language.get_input_embeddings().weight[-2:] = 0
    facts = language.config.to_dict()
    text = LlamaConfig(**{key: value for key, value in facts.items() if key not in ("quantization_config", "dtype")})
    end = words.convert_tokens_to_ids("<|im_end|>")
    text.pad_token_id = text.eos_token_id = end
    video, image = words.convert_tokens_to_ids([VIDEO, IMAGE])
    config = LlavaOnevisionConfig(
        vision_config=pocket.config.vision_config,
        text_config=text,
        image_token_index=image,
        video_token_index=video,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[SIZE, SIZE]],
        tie_word_embeddings=True,
    )
    model = LlavaOnevisionForConditionalGeneration(config).float()
    model.model.vision_tower.load_state_dict(pocket.model.vision_tower.state_dict())
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    generation = model.generation_config
    generation.pad_token_id = generation.eos_token_id = end
    generation.bos_token_id = words.convert_tokens_to_ids("<|im_start|>")
    generation.suppress_tokens = [video, image]
    generation.do_sample, generation.max_new_tokens = False, 96
    return model


def build_processor() -> LlavaOnevisionProcessor:
    """Frames of 112 x 112 pixels, scaled to -1..1, as pocket's."""
    from transformers import LlavaOnevisionProcessor
    from transformers.models.llava_onevision.image_processing_llava_onevision import LlavaOnevisionImageProcessor
    from transformers.models.llava_onevision.video_processing_llava_onevision import LlavaOnevisionVideoProcessor

    pixels = {"size": {"height": SIZE, "width": SIZE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(image_grid_pinpoints=[[SIZE, SIZE]], **pixels),
        video_processor=LlavaOnevisionVideoProcessor(do_sample_frames=False, **pixels),
        tokenizer=load_tokenizer(),
        num_image_tokens=(SIZE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        video_token=VIDEO,
    )


def add_lora(model: LlavaOnevisionForConditionalGeneration) -> None:
    """Put a delta beside each linear map of the language model's layers, and freeze everything else of it."""
    language = model.model.language_model
    language.requires_grad_(False)
    for module, name, linear in list(_linears(language)):
        setattr(module, name, LoRA(linear))


def quicken(model: LlavaOnevisionForConditionalGeneration) -> None:
    """The language model's frozen weights in bfloat16, the deltas still in float32, and its layers compiled."""
    language = model.model.language_model
    in_bfloat16(parameter for parameter in language.parameters() if not parameter.requires_grad)
    for layer in language.layers:
        layer.compile(dynamic=True)


def in_bfloat16(parameters: Iterable[nn.Parameter]) -> None:
    """Not the buffers of a model: rounded frequencies would turn its positions."""
    for parameter in parameters:
        parameter.data = parameter.data.to(torch.bfloat16)


@contextmanager
def without_lora(model: nn.Module) -> Iterator[None]:
    """The language model as it was published, for a while."""
    added = loras(model).values()
    for module in added:
        module.active = False
    try:
        yield
    finally:
        for module in added:
            module.active = True


def loras(model: nn.Module) -> dict[str, LoRA]:
    """The maps with deltas, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRA)}


def _linears(language: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for module in language.modules():
        for name, child in module.named_children():
            if name in TARGETS and isinstance(child, nn.Linear):
                yield module, name, child


def deltas(model: LlavaOnevisionForConditionalGeneration) -> dict[str, Tensor]:
    """What is smol's own in a model with LoRA beside its maps: tower, projector, newline and deltas, float16."""
    own = {
        name: tensor
        for name, tensor in model.model.state_dict().items()
        if name.startswith(OWN) or name.endswith((".a", ".b"))
    }
    return {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in own.items()}


def load_deltas(model: LlavaOnevisionForConditionalGeneration, own: dict[str, Tensor]) -> None:
    """Put what :func:`deltas` gave back into a model with LoRA beside its maps, to go on learning.

    Raises:
        ValueError: they are not of such a model.
    """
    if different := sorted(own.keys() ^ deltas(model).keys()):
        raise ValueError(f"these are not smol's weights: {different[:3]}")
    model.model.load_state_dict({name: tensor.float() for name, tensor in own.items()}, strict=False)


@torch.no_grad()
def join(model: LlavaOnevisionForConditionalGeneration, own: dict[str, Tensor]) -> None:
    """Put what :func:`deltas` gave into a model as :func:`build` makes it, deltas merged into the weights.

    Raises:
        ValueError: they are not of such a model, or not all of them.
    """
    modules = dict(model.model.named_modules())
    targets = [name for name in modules if name.startswith("language_model") and name.endswith(TARGETS)]
    expected = {name for name in model.model.state_dict() if name.startswith(OWN)}
    expected |= {f"{name}.{side}" for name in targets for side in "ab"}
    if different := sorted(own.keys() ^ expected):
        raise ValueError(f"these are not smol's weights: {different[:3]}")
    rest = {name: tensor.float() for name, tensor in own.items() if not name.endswith((".a", ".b"))}
    model.model.load_state_dict(rest, strict=False)
    for name in own:
        if name.endswith(".a"):
            a, b = own[name].float(), own[name.removesuffix(".a") + ".b"].float()
            modules[name.removesuffix(".a")].weight += SCALE * (b @ a)
