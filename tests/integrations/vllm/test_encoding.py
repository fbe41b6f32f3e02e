"""``encode`` in vLLM: all encoded is vLLM's own pass to the bit, a part is what the library makes of that part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from prompts import Library, Prompt, ask, model_of
from small import NAMES
from vllm.engine.arg_utils import EngineArgs
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from sharpv.integrations.vllm import encoding
from sharpv.integrations.vllm.engine import refuse_beside_encode
from sharpv.integrations.vllm.processor import ENCODED
from sharpv.vision.rules import Kept, Rule

PRUNED = {"video_pruning_rate": 0.75, "enable_prefix_caching": False}
KEPT = {"encode": "kept"}
MOVES = {
    title: Prompt(parts, change)
    for title, parts, change in (
        ("video", ("What is this?", 8), 0.05),
        ("everything moves", ("What is this?", 8), 1.0),
        ("nothing moves", ("What is this?", 8), 0.0),
        ("image, video", (1, "before", 12, "after"), 0.05),
        ("two videos", (6, "and", 6, "differ?"), 0.05),
    )
}


@dataclass(frozen=True)
class Together(Rule):
    """Another rule, with the patches of a token together, as Qwen's towers in vLLM take them."""

    name: ClassVar[str] = "together"
    summary: ClassVar[str] = ""
    rule: Rule

    def choose(self, pixels, budget, piece=None):
        return self.rule.choose(replace(pixels, together=pixels.frames.ndim == 3), budget, piece)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def kept(name, engine) -> dict[str, Any]:
    """Each prompt alone, and the shares of its places that were encoded."""
    found, started = {}, engine(name, hf_overrides={"sharpv": KEPT}, **PRUNED)
    for title, prompt in MOVES.items():
        with packed_passes() as shares:
            found[title] = ask(started, [prompt], name)[0], shares
    return found


@contextmanager
def packed_passes() -> Iterator[list[float]]:
    """The shares that packed passes encode meanwhile, one for each kind of segments."""
    shares: list[float] = []

    def noting(stock: Any) -> Any:
        def made(here: torch.Tensor, *args: Any, **options: Any) -> Any:
            shares.append(float(here.float().mean()))
            return stock(here, *args, **options)

        return made

    with pytest.MonkeyPatch.context() as patch:
        for each in ("segments", "Packed"):
            patch.setattr(encoding, each, noting(getattr(encoding, each)))
        yield shares


@pytest.mark.parametrize("title", MOVES)
def test_what_is_encoded_in_part_is_what_the_library_makes_of_that_part(title, name, kept, library):
    answer, shares = kept[title]
    expected = library(name).answer(MOVES[title])
    assert answer.agrees(expected)
    assert 0 < max(shares) < 1
    assert len(shares) == (2 if name == "qwen2_5_vl" else 1)  # one pass, which has windows and whole frames there
    assert shares[0] == pytest.approx(library(name).pruning.report.encoded)


@pytest.fixture(scope="module")
def library(checkpoint):
    made: dict[str, Library] = {}

    def make(name: str) -> Library:
        if name not in made:
            made.clear()
            made[name] = Library(checkpoint(name), name, 0.25, encode=Together(Kept()))
        return made[name]

    return make


def test_prompts_together_in_chunks_and_from_a_cached_prefix_answer_as_alone(name, kept, engine):
    pieces = {"max_num_batched_tokens": 48, "enable_prefix_caching": True, "block_size": 32}
    engine_ = engine(name, hf_overrides={"sharpv": KEPT}, **PRUNED | pieces)
    prompts, alone = list(MOVES.values()), [answer for answer, _ in kept.values()]
    for _ in range(2):
        found = ask(engine_, prompts, name)
        assert [a.agrees(b) for a, b in zip(found, alone, strict=True)] == [True] * len(alone)


def test_everything_encoded_is_vllms_own_pass_to_the_bit(name, engine):
    moves = MOVES["everything moves"]
    plain = ask(engine(name, hf_overrides={"sharpv": {}}, **PRUNED), [moves], name)[0]
    changed = engine(name, hf_overrides={"sharpv": {"encode": "changed"}}, **PRUNED)
    with packed_passes() as shares:
        found = ask(changed, [moves], name)[0]
    assert not shares
    assert found.tokens == plain.tokens and torch.equal(found.logprobs.nan_to_num(1), plain.logprobs.nan_to_num(1))


class TestTower:
    """The tower of an engine by itself: two videos of different lengths, which repeat their first frame."""

    @pytest.fixture
    def changed(self, name, engine) -> Any:
        return engine(name, hf_overrides={"sharpv": {"encode": "changed"}}, **PRUNED)

    @pytest.fixture
    def model(self, changed) -> Any:
        return model_of(changed)

    @pytest.fixture
    def config(self, changed) -> Any:
        return changed.llm_engine.model_config

    @pytest.fixture
    def videos(self, name) -> tuple[Any, list[list[int]], list[torch.Tensor]]:
        """Pixels, grids, and what is encoded: the first frames, and of the second video's last one place."""
        generator = torch.Generator().manual_seed(0)
        encoded = [torch.zeros(frames, 36, dtype=torch.bool) for frames in (3, 4)]
        for each in encoded:
            each[0] = True
        encoded[1][3, 7] = True
        if name == "llava_onevision":
            first = [torch.randn(1, 3, 48, 48, generator=generator) for _ in encoded]
            pixels = [one.repeat(len(each), 1, 1, 1) for one, each in zip(first, encoded, strict=True)]
            return torch.cat(pixels), [], encoded
        first = [torch.randn(144, 3 * 2 * 8 * 8, generator=generator) for _ in encoded]
        pixels = torch.cat([one.repeat(len(each), 1) for one, each in zip(first, encoded, strict=True)])
        return pixels, [[len(each), 12, 12] for each in encoded], encoded

    def features(self, model: Any, pixels: torch.Tensor, grids: list[list[int]], encoded: Any) -> torch.Tensor:
        with torch.inference_mode():
            if not grids:
                with encoding.encoding_pictures(model.vision_tower, encoded):
                    return model.vision_tower(pixels, feature_select_strategy="full")
            if encoded is None:
                return model.visual(pixels, grids)
            return encoding.encode_patches(model.visual, pixels, grids, encoded)

    def test_a_clip_that_repeats_is_the_whole_pass_from_one_frame(self, model, videos):
        pixels, grids, encoded = videos
        whole = self.features(model, pixels, grids, None)
        torch.testing.assert_close(self.features(model, pixels, grids, encoded), whole, atol=2e-5, rtol=2e-5)
        everything = [torch.ones_like(each) for each in encoded]
        torch.testing.assert_close(self.features(model, pixels, grids, everything), whole, atol=2e-5, rtol=2e-5)

    def test_a_batch_gives_what_each_video_gives_alone(self, model, videos, name):
        pixels, grids, encoded = videos
        pixels = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1))
        together = self.features(model, pixels, grids, encoded)
        unit = len(pixels) // 7
        alone = [
            self.features(model, part, grids[index : index + 1], encoded[index : index + 1])
            for index, part in enumerate(pixels.split([3 * unit, 4 * unit]))
        ]
        torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=2e-5)

    def test_flash_attention_s_conventions(self, model, videos, name, monkeypatch):
        """A stand-in for vLLM's kernel, which a CPU does not have."""
        pixels, grids, encoded = videos
        pixels = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1))
        expected = self.features(model, pixels, grids, encoded)
        calls = []

        def flash(q, k, v, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal, softmax_scale):
            assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32 and not causal
            lengths = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
            assert (max(lengths[0]), max(lengths[1])) == (max_seqlen_q, max_seqlen_k) and min(lengths[0]) > 0
            calls.append(len(lengths[0]))
            parts = zip(q.split(lengths[0]), k.split(lengths[1]), v.split(lengths[1]), strict=True)
            attended = [
                torch.nn.functional.scaled_dot_product_attention(
                    *(each.transpose(0, 1)[None] for each in part), scale=softmax_scale
                )[0].transpose(0, 1)
                for part in parts
            ]
            return torch.cat(attended)

        monkeypatch.setattr("vllm.v1.attention.backends.fa_utils.flash_attn_varlen_func", flash, raising=False)
        for layer in encoding._attentions(model.get_submodule(model.tower)):
            monkeypatch.setattr(layer, "is_flash_attn_backend", True)
        torch.testing.assert_close(self.features(model, pixels, grids, encoded), expected, atol=2e-5, rtol=2e-5)
        assert calls and min(calls) >= 3

    def test_nothing_stays(self, model, videos):
        self.features(model, *videos)
        for module in model.get_submodule(model.tower).modules():
            assert "forward" not in vars(module) and not module._forward_hooks and not module._forward_pre_hooks

    def test_bytes_are_weighed_as_the_tower_normalises_them(self, model, config, name):
        if name == "llava_onevision":
            assert not model.supports_mm_device_do_normalize  # its pixels come normalised
            return
        processor = MULTIMODAL_REGISTRY.create_processor(config)
        raw = torch.zeros(1, 3 * 2 * 8 * 8, dtype=torch.uint8)
        weight = model.visual.input_norm.weight.repeat_interleave(2 * 8 * 8)
        torch.testing.assert_close(processor._scale(raw), weight)

    def test_memory_is_profiled_with_the_largest_pass(self, config, monkeypatch):
        """vLLM's dummy video is white, and by itself next to nothing of it would be encoded."""
        processor = MULTIMODAL_REGISTRY.create_processor(config)
        dummy, small = processor.dummy_inputs._get_dummy_videos, {"num_frames": 8, "width": 96, "height": 96}
        monkeypatch.setattr(processor.dummy_inputs, "_get_dummy_videos", lambda **options: dummy(**options | small))
        (video,) = processor.get_dummy_mm_inputs({"video": 1, "image": 0})["mm_kwargs"]["video"]
        encoded = video[ENCODED].data
        assert len(encoded) in (4, 8) and int((~encoded).sum()) == 1

    @pytest.mark.parametrize("found", ["FLASHINFER", "TRITON_ATTN", "FP8"])
    def test_attention_that_has_as_many_keys_as_queries_is_refused(self, found, model, monkeypatch):
        tower = model.get_submodule(model.tower)
        layer = encoding._attentions(tower)[0]
        if found == "FP8":
            monkeypatch.setattr(layer, "fp8_enabled", True)
        else:
            monkeypatch.setattr(layer, "attn_backend", AttentionBackendEnum[found])
        says = f"encode needs --mm-encoder-attn-backend FLASH_ATTN or TORCH_SDPA, and this tower has {found}"
        with pytest.raises(ValueError, match=says):
            encoding.require(tower)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"compilation_config": {"compile_mm_encoder": True}}, "compile_mm_encoder, which fixes what runs"),
        ({"enable_lora": True, "enable_tower_connector_lora": True}, "--enable-tower-connector-lora, which counts"),
        ({"mm_encoder_tp_mode": "data"}, "--mm-encoder-tp-mode data, which parts"),
    ],
)
def test_what_runs_in_the_tower_in_another_way_is_refused(options, says, checkpoint):
    args = {"model": str(checkpoint("qwen2_5_vl")), "dtype": "float32", "max_model_len": 512, "enforce_eager": True}
    asked = {"video_pruning_rate": 0.75, "hf_overrides": {"sharpv": KEPT}}
    with pytest.raises(ValueError, match=f"sharpv's encode='kept' does not go together with {says}"):
        EngineArgs(**args, **asked, **options).create_engine_config()
    EngineArgs(**args, video_pruning_rate=0.75, hf_overrides={"sharpv": {}}, **options).create_engine_config()


def test_a_clip_tower_is_refused():
    model = SimpleNamespace(
        hf_config=SimpleNamespace(sharpv=KEPT, vision_config=SimpleNamespace(model_type="clip_vision_model")),
        multimodal_config=SimpleNamespace(
            video_pruning_method="evs", video_pruning_rate=0.5, mm_encoder_tp_mode="weights"
        ),
    )
    config = SimpleNamespace(
        model_config=model, lora_config=None, compilation_config=SimpleNamespace(compile_mm_encoder=False)
    )
    with pytest.raises(ValueError, match="encode='kept' does not go together with a CLIP tower"):
        refuse_beside_encode(config)
