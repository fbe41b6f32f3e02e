"""A packed pass through every family's tower: dense where all is encoded, elsewhere what a plain reference gives."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

import sharpv
import tiny
from sharpv.models import find_family
from sharpv.vision.attention import PREFIX, SEGMENTS, USERS
from sharpv.vision.encoding import encode_videos, split_videos
from sharpv.vision.packed import Packed
from sharpv.vision.rules import All, Changed, Rule
from sharpv.vision.surgery import RUNNING, windows_of
from tiny import Clip

CUT = [name for name in tiny.FAMILIES if find_family(tiny.build(name)).tower is not None]
PROMPTS: list[list[tiny.Part]] = [[10, 11, Clip(1, frames=6), 12, 13, 14], [10, Clip(2, frames=6), 15]]


@dataclass(frozen=True)
class Given(Rule):
    """So much of every frame but the first, at random; 1: all of it, through the mechanism."""

    name: ClassVar[str] = "given"
    summary: ClassVar[str] = ""
    share: float = 1.0

    def choose(self, pixels, budget, piece=None):
        shape = len(pixels), pixels.patches
        chosen = torch.rand(shape, generator=torch.Generator().manual_seed(4)) < self.share
        chosen[3:4] = False  # a frame with nothing of its own
        return chosen | (torch.arange(len(pixels)) == 0)[:, None] | torch.tensor(self.share >= 1)


def logits_of(model: Any, inputs: dict[str, Any], **options: Any) -> Tensor:
    with sharpv.apply(model, retention=0.4, **options), torch.no_grad():
        return model(**inputs).logits


def still(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The clips with their first frames all the time."""
    if find_family(model).pads_samples:
        inputs["pixel_values"][:, 1:] = inputs["pixel_values"][:, :1]
        return inputs
    for part in split_videos(model, find_family(model), inputs):
        part.frames[1:] = part.frames[:1]  # a view of the inputs
    return inputs


@contextmanager
def overwritten(model: Any, share: float):
    """The reference: a dense pass in which, after every layer, a place that is not encoded takes the state that stands
    there. It computes everything and throws most of it away."""
    family = find_family(model)
    layers, _ = family.tower.parts(model)

    def stand(hidden: Tensor) -> Tensor:
        frames = 6 if hidden.ndim == 3 else len(hidden) // self_places
        states = hidden if hidden.ndim == 3 else hidden.unflatten(0, (frames, -1))
        size = grid[0] * grid[1]
        chosen = Given(share).choose(_Shape(len(states), size), None)
        if family.tower.windows:
            chosen = chosen[:, windows_of(family.tower.module(model), grid)[0]]
        leading = states.shape[1] - size
        chosen = torch.cat([chosen.any(1, keepdim=True).expand(-1, leading), chosen], 1)
        states = states.clone()
        for frame in range(1, len(states)):
            states[frame] = torch.where(chosen[frame, :, None], states[frame], states[frame - 1])
        return states if hidden.ndim == 3 else states.flatten(0, 1)

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        return (stand(output[0]), *output[1:]) if isinstance(output, tuple) else stand(output)

    def recorded(_: nn.Module, __: Any, output: Any) -> None:
        states = getattr(output, "hidden_states", None)
        if states is not None:
            output.hidden_states = tuple(None if state is None else stand(state) for state in states)

    grid, self_places = ((3, 3), 9) if family.model_types[0] == "video_llava" else ((6, 6), 36)
    handles = [layers[0].register_forward_pre_hook(lambda _, args: (stand(args[0]), *args[1:]))]
    handles += [layer.register_forward_hook(after) for layer in layers]
    handles.append(family.tower.module(model).register_forward_hook(recorded))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Shape:
    def __init__(self, frames: int, patches: int) -> None:
        self.frames, self.patches = frames, patches

    def __len__(self) -> int:
        return self.frames


@pytest.mark.parametrize("family", CUT)
class TestFamilies:
    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_everything_encoded_is_dense(self, family: str, attention: str) -> None:
        model, inputs = tiny.make(family, attention), tiny.FAMILIES[family].inputs(PROMPTS)
        dense, packed = logits_of(model, inputs), logits_of(model, inputs, encode=Given(1.0))
        # eager multiplies windows one by one, here many at a time
        exact = attention == "sdpa" or not find_family(model).tower.windows  # type: ignore[union-attr]
        torch.testing.assert_close(packed, dense, atol=0 if exact else 2e-6, rtol=0)

    def test_a_clip_that_repeats_is_dense_from_one_frame(self, family: str) -> None:
        model = tiny.build(family)
        inputs = still(model, tiny.FAMILIES[family].inputs(PROMPTS))
        with sharpv.apply(model, retention=0.4, encode="changed:threshold=0") as pruning, torch.no_grad():
            once = model(**inputs).logits
        assert [video.encoded_per_frame for video in pruning.report.videos] == [
            [video.patches // 6, *[0] * 5] for video in pruning.report.videos
        ]
        torch.testing.assert_close(once, logits_of(model, inputs), atol=2e-6, rtol=0)

    @pytest.mark.parametrize("share", [0.2, 0.7])
    def test_partly_encoded_is_what_a_plain_reference_gives(self, family: str, share: float) -> None:
        model, inputs = tiny.build(family), tiny.FAMILIES[family].inputs([PROMPTS[0]])
        packed = logits_of(model, inputs, encode=Given(share))
        with overwritten(model, share):
            expected = logits_of(model, inputs)
        torch.testing.assert_close(packed, expected, atol=2e-5, rtol=0)
        assert not packed.equal(logits_of(model, inputs))

    def test_half_precision(self, family: str) -> None:
        model, inputs = tiny.make(family).bfloat16(), tiny.FAMILIES[family].inputs(PROMPTS)
        inputs = {
            name: value.bfloat16() if isinstance(value, Tensor) and value.is_floating_point() else value
            for name, value in inputs.items()
        }
        assert logits_of(model, inputs, encode=Given(1.0)).equal(logits_of(model, inputs))

    def test_nothing_stays(self, family: str) -> None:
        def hooks() -> list[int]:
            return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]

        model, inputs = tiny.make(family), tiny.FAMILIES[family].inputs(PROMPTS)
        dense = logits_of(model, inputs)  # transformers sets hooks of its own in the first pass
        before = hooks()
        logits_of(model, inputs, encode=Given(0.5))
        assert hooks() == before and RUNNING.get() is SEGMENTS.get() is None and not USERS
        configs = [module.config for module in model.modules() if hasattr(module, "config")]
        assert not any(str(config._attn_implementation).startswith(PREFIX) for config in configs)
        assert logits_of(model, inputs).equal(dense)


NAME = "flash_stand_in"


def flash(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling=None,
    cu_seq_lens_q=None,
    cu_seq_lens_k=None,
    max_length_q=None,
    max_length_k=None,
    **kwargs: Any,
):
    """FlashAttention's conventions: sequences of different lengths by their bounds, and a look at its own name."""
    assert module.config._attn_implementation == NAME and attention_mask is None
    if cu_seq_lens_q is None:
        out = nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling)
        return out.transpose(1, 2).contiguous(), None
    assert cu_seq_lens_q.dtype == cu_seq_lens_k.dtype == torch.int32
    queries, keys = cu_seq_lens_q.diff().tolist(), cu_seq_lens_k.diff().tolist()
    assert max(queries) == max_length_q and max(keys) == max_length_k and min(queries) > 0
    parts = zip(query.split(queries, 2), key.split(keys, 2), value.split(keys, 2), strict=True)
    out = torch.cat([nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in parts], 2)
    return out.transpose(1, 2).contiguous(), None


@pytest.fixture
def flash_attention():
    AttentionInterface.register(NAME, flash)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    yield NAME
    AttentionInterface._global_mapping.pop(NAME)
    AttentionMaskInterface._global_mapping.pop(NAME)


@pytest.mark.parametrize("family", CUT)
def test_flash_attention_s_conventions(family: str, flash_attention: str) -> None:
    model, inputs = tiny.make(family), tiny.FAMILIES[family].inputs(PROMPTS)
    sparse = logits_of(model, inputs, encode=Given(0.5))
    model.config.vision_config._attn_implementation = flash_attention
    for module in find_family(model).tower.module(model).modules():  # type: ignore[union-attr]
        if hasattr(module, "config"):
            module.config._attn_implementation = flash_attention
    dense = logits_of(model, inputs)
    assert logits_of(model, inputs, encode=Given(1.0)).equal(dense)
    torch.testing.assert_close(logits_of(model, inputs, encode=Given(0.5)), sparse, atol=2e-6, rtol=0)


def test_padded_pictures_keep_their_mask() -> None:
    """SmolVLM pads pictures, and its tower masks what is padding."""
    model, inputs = tiny.make("smolvlm"), tiny.FAMILIES["smolvlm"].inputs([PROMPTS[0]])
    mask = torch.ones(*inputs["pixel_values"].shape[:2], *inputs["pixel_values"].shape[3:], dtype=torch.bool)
    whole = logits_of(model, {**inputs, "pixel_attention_mask": mask})
    mask[..., 16:] = False
    inputs["pixel_attention_mask"] = mask
    dense = logits_of(model, inputs)
    assert logits_of(model, inputs, encode=Given(1.0)).equal(dense) and not dense.equal(whole)
    packed = logits_of(model, inputs, encode=Given(0.4))
    with overwritten(model, 0.4):
        torch.testing.assert_close(packed, logits_of(model, inputs), atol=2e-5, rtol=0)


@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl", "internvl", "smolvlm", "qwen3_vl"])
def test_images_beside_are_untouched(family: str) -> None:
    model = tiny.build(family)
    inputs = tiny.FAMILIES[family].inputs([[10, Clip(3, image=True), 11, Clip(1), 12, Clip(4, image=True), 13]])
    assert logits_of(model, inputs, encode=Given(1.0)).equal(logits_of(model, inputs))
    logits = logits_of(model, inputs, encode=Given(0.3))
    alone = {name: inputs[name] for name in inputs}
    assert logits.isfinite().all() and logits.shape == logits_of(model, alone).shape


@pytest.mark.parametrize("family", ["llava_onevision", "qwen3_vl", "smolvlm"])
def test_generation_with_beams(family: str) -> None:
    model, inputs = tiny.build(family), still(tiny.build(family), tiny.FAMILIES[family].inputs(PROMPTS))
    options: dict[str, Any] = {"max_new_tokens": 4, "num_beams": 2, "do_sample": False}
    with sharpv.apply(model, retention=0.4):
        plain = model.generate(**inputs, **options)
    with sharpv.apply(model, retention=0.4, encode="kept:threshold=0"):
        assert torch.equal(model.generate(**inputs, **options), plain)


def test_threads_keep_apart() -> None:
    """Some encode little, some all, some without us, all through one tower at once."""
    model, inputs = tiny.make("llava_onevision"), tiny.FAMILIES["llava_onevision"].inputs(PROMPTS)
    family = find_family(model)
    rules: list[Rule] = [All(), Given(0.3), Given(0.6), Changed(0.0)]

    def features(rule: Rule) -> Tensor:
        with torch.no_grad():
            if isinstance(rule, All):
                return torch.cat(list(family.encode(model, "video", inputs).pooler_output))
            encoding = sharpv.Config(retention=0.4, encode=rule)
            return torch.cat(encode_videos(model, family, encoding.encoding, encoding.budget, inputs).rows)

    alone = [features(rule) for rule in rules]
    wrong: list[Rule] = []

    def many(rule: Rule, expected: Tensor) -> None:
        wrong.extend(rule for _ in range(20) if not features(rule).equal(expected))

    threads = [threading.Thread(target=many, args=pair) for pair in zip(rules, alone, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and not USERS and model.config.vision_config._attn_implementation == "sdpa"


def test_a_pass_that_fails_leaves_nothing() -> None:
    model, inputs = tiny.make("qwen3_vl"), tiny.FAMILIES["qwen3_vl"].inputs(PROMPTS)
    dense = logits_of(model, inputs)
    handle = model.model.visual.blocks[1].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        logits_of(model, inputs, encode=Given(0.5))
    handle.remove()
    assert RUNNING.get() is SEGMENTS.get() is None and not USERS and logits_of(model, inputs).equal(dense)


@pytest.mark.parametrize("rule", ["changed", "kept"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("family", ["llava_onevision", "qwen3_vl"])
def test_broken_pixels_are_refused_as_without(family: str, value: float, rule: str) -> None:
    model, inputs = tiny.build(family), still(tiny.build(family), tiny.FAMILIES[family].inputs(PROMPTS[:1]))
    frames = split_videos(model, find_family(model), inputs)[0].frames
    frames[2].view(-1)[5] = value
    with pytest.raises(ValueError, match="features must be finite"):
        logits_of(model, inputs, encode=rule)


def test_gradient_checkpointing_of_the_tower_is_refused() -> None:
    """Its layers would be run again without the hooks."""
    model, inputs = tiny.make("llava_onevision"), tiny.FAMILIES["llava_onevision"].inputs(PROMPTS)
    model.train()
    model.gradient_checkpointing_enable()
    with sharpv.apply(model, retention=0.4, encode="changed"):
        with pytest.raises(ValueError, match="gradient checkpointing runs the vision tower's layers again"):
            model(**inputs)
        with torch.no_grad():
            assert model(**inputs).logits.isfinite().all()


def test_a_compiled_tower_is_refused() -> None:
    model, inputs = tiny.make("llava_onevision"), tiny.FAMILIES["llava_onevision"].inputs(PROMPTS)
    model.model.vision_tower.compile()
    with pytest.raises(ValueError, match="the vision tower is compiled"):
        logits_of(model, inputs, encode="changed")


@pytest.mark.parametrize("windows", [None, [4, 4, 1], [2, 7]])
@pytest.mark.parametrize("leading", [0, 1])
def test_every_row_comes_back_to_its_place(windows: list[int] | None, leading: int) -> None:
    encoded = torch.rand(5, 9, generator=torch.Generator().manual_seed(1)) < 0.4
    encoded[0] = True
    packed = Packed(encoded, leading, windows if not leading else None)
    states = torch.arange(5 * (9 + leading)).view(5, 9 + leading, 1)
    expected = states.clone()
    every = torch.cat([encoded.any(1, keepdim=True).expand(-1, leading), encoded], 1)
    for frame in range(1, 5):
        expected[frame] = torch.where(every[frame, :, None], states[frame], expected[frame - 1])
    assert packed.spread(packed.cut(states)).equal(expected)
    assert packed.spread(packed.cut(states.flatten(0, 1))).equal(expected.flatten(0, 1))
    for segments in (packed.by_frame, packed.by_window):
        rows = torch.cat([batch.queries.flatten() for batch in segments.batches])
        assert rows[segments.back].equal(torch.arange(len(packed.rows)))
        assert segments.query_ends[-1] == len(packed.rows) and segments.key_ends[-1] == len(segments.keys)
