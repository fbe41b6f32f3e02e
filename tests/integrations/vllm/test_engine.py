"""vLLM's engine against transformers with this library: the same tokens kept, the same positions, the same answers."""

from __future__ import annotations

import pytest
import torch
from prompts import PROMPTS, Library, Prompt, ask, model_of
from small import NAMES, STOCK

PRUNED = {"video_pruning_method": "sharpv", "video_pruning_rate": 0.75}
ADAPTIVE = {"counting": "pixels", "gain": 1.2}
PIECES = {"max_num_batched_tokens": 48, "enable_prefix_caching": True, "block_size": 32}


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(name, engine) -> dict[str, object]:
    """Each prompt alone, in one piece, nothing cached: what all others are compared with."""
    plain = engine(name, enable_prefix_caching=False, **PRUNED)
    return {title: ask(plain, [prompt], name)[0] for title, prompt in PROMPTS.items()}


@pytest.mark.parametrize("title", PROMPTS)
def test_the_same_answer_and_positions_as_transformers(title, name, whole, checkpoint, library):
    if (name, title) == ("llava_onevision", "two lengths"):
        with pytest.raises(ValueError, match="stack expects"):  # transformers' processor cannot; vLLM can
            library(name).answer(PROMPTS[title])
        return
    expected, found = library(name).answer(PROMPTS[title]), whole[title]
    assert found.length == expected.length
    assert torch.equal(found.positions, expected.positions.expand_as(found.positions))
    assert found.agrees(expected)


@pytest.fixture(scope="module")
def library(checkpoint):
    kept: dict[str, Library] = {}

    def make(name: str) -> Library:
        if name not in kept:
            kept.clear()
            kept[name] = Library(checkpoint(name), name, retention=0.25)
        return kept[name]

    return make


def test_prompts_together_answer_as_alone(name, whole, engine):
    together = ask(engine(name, enable_prefix_caching=False, **PRUNED), list(PROMPTS.values()), name)
    assert [a.agrees(b) for a, b in zip(together, whole.values(), strict=True)] == [True] * len(whole)


def test_videos_that_come_together_are_encoded_together(name, engine):
    """One call of the tower for the two videos of a prompt, where vLLM's own pruning makes two."""
    plain = engine(name, enable_prefix_caching=False, **PRUNED)
    tower = model_of(plain).vision_tower if name == "llava_onevision" else model_of(plain).visual
    calls = []
    hook = tower.register_forward_hook(lambda *_: calls.append(1))
    ask(plain, [Prompt((14, "not seen before", 16))], name)
    hook.remove()
    assert len(calls) == 1


def test_chunked_prefill_and_a_cached_prefix_change_nothing(name, whole, engine):
    pieces = engine(name, **PRUNED, **PIECES)
    chunked = [ask(pieces, [prompt], name)[0] for prompt in PROMPTS.values()]
    repeated = [ask(pieces, [prompt], name)[0] for prompt in PROMPTS.values()]
    together = ask(pieces, list(PROMPTS.values()), name)
    assert max(answer.length for answer in chunked) > 48
    assert all(answer.cached > 0 for answer in repeated if answer.length > 32)
    for answers in (chunked, repeated, together):
        assert [a.agrees(b) for a, b in zip(answers, whole.values(), strict=True)] == [True] * len(whole)


def test_adaptive_keeps_what_the_pixels_ask_for(name, engine, checkpoint):
    """Another count for another content, and then the same answer as the library's at that count."""
    adaptive = engine(name, enable_prefix_caching=False, video_pruning_rate=0.05, hf_overrides={"sharpv": ADAPTIVE})
    tokens = {"llava_onevision": 8 * 9}.get(name, 4 * 36)
    dense = Library(checkpoint(name), name, retention=1.0)
    shares = []
    for change in (0.3, 0.9):
        prompt = Prompt(("What is this?", 8), change)
        found = ask(adaptive, [prompt], name)[0]
        kept = tokens - (dense.answer(prompt).length - found.length)
        shares.append(kept / tokens)
        assert found.agrees(Library(checkpoint(name), name, retention=kept / tokens).answer(prompt))
    assert 0 < shares[0] < shares[1] <= 0.95


def test_another_method_answers_as_in_the_library_merged_features_included(name, engine, checkpoint):
    method = "fastvid" if name == "llava_onevision" else "fastvid:everywhere=true"
    overrides = {"sharpv": {"method": method}}
    other = engine(name, enable_prefix_caching=False, video_pruning_rate=0.5, hf_overrides=overrides)
    library = Library(checkpoint(name), name, 0.5, method)
    for title in ("video", "image, video"):
        assert ask(other, [PROMPTS[title]], name)[0].agrees(library.answer(PROMPTS[title]))


def test_without_pruning_it_is_vllms_own_model(name, engine, library, checkpoint):
    dense = engine(STOCK.get(name, name), enable_prefix_caching=False)
    assert type(model_of(dense)).__module__ == f"vllm.model_executor.models.{name}"
    assert not hasattr(model_of(dense), "sharpv")
    expected = Library(checkpoint(name), name, retention=1.0).answer(PROMPTS["image, video"])
    assert ask(dense, [PROMPTS["image, video"]], name)[0].agrees(expected)
