"""A request's state travels with the request: threads, nested calls, interruptions, wrapping, and later turns."""

from __future__ import annotations

import copy
import functools
import io
import pickle
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, LogitsProcessorList

import sharpv
import tiny
from reference import cache_of, on
from sharpv.covers import Cover
from sharpv.methods import METHODS
from tiny import Clip

ONE: list[list[tiny.Part]] = [[10, 11, Clip(1), 12, 13, 14]]
TWO: list[list[tiny.Part]] = [*ONE, [10, Clip(2), 15]]
OTHER: list[list[tiny.Part]] = [[10, Clip(9, frames=6), 15]]
GREEDY: dict[str, Any] = dict(do_sample=False, return_dict_in_generate=True, output_logits=True)
TYPES = ["llava_onevision", "qwen2_5_vl", "internvl"]
STAGES = {
    "cosine": tiny.HIGH_M,
    "fastv": "fastv:retention=0.3",
    "vtw": "vtw",
    "contribution": "contribution:relative=0.5",
}
"""Second stages that keep something while a prompt is being read."""
CASES = [(name, "cosine") for name in sorted(METHODS)] + [("sharpv", stage) for stage in STAGES if stage != "cosine"]


def inputs_of(family: str, prompts: list[list[tiny.Part]] = ONE) -> dict[str, Any]:
    return tiny.FAMILIES[family].inputs(prompts)


def seen(out: Any) -> tuple[Tensor, list[int]]:
    """What a generation computed, and how much each layer stores afterwards."""
    return torch.stack(out.logits, dim=1), [layer.keys.shape[2] for layer in cache_of(out).layers]


def options_of(name: str) -> dict[str, Any]:
    return {"config": name} if METHODS[name].adaptive else {"config": name, "retention": 0.3}


# threads --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_threads_do_not_meet(name, stage, hasty):
    """Four threads, generating and running forward on one model: as if each were alone. All methods, all stages."""
    family = TYPES[CASES.index((name, stage)) % len(TYPES)]
    model = tiny.build(family)
    requests = [inputs_of(family, [[10, *([12] * i), Clip(i, frames=4 + 2 * (i % 2)), 13]]) for i in range(4)]

    def ask(index: int) -> Any:
        out = model.generate(**requests[index], max_new_tokens=3, **GREEDY)
        return *seen(out), str(handle.report_of(out))

    def read(index: int) -> Any:
        out = model(**requests[index], use_cache=True)
        return out.logits, [layer.keys.shape[2] for layer in cache_of(out).layers], str(handle.report_of(out))

    with torch.no_grad(), sharpv.apply(model, **options_of(name), memory=STAGES[stage]) as handle:
        alone = [(ask(index), read(index)) for index in range(4)]
        with ThreadPoolExecutor(4) as pool:
            jobs = [(i, k, pool.submit((ask, read)[k], i)) for _ in range(2) for i in range(4) for k in (0, 1)]
            for index, kind, job in jobs:
                (logits, stored, report), (expected, as_stored, as_reported) = job.result(), alone[index][kind]
                torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
                assert stored == as_stored and report == as_reported


@pytest.mark.parametrize("family", TYPES)
@pytest.mark.parametrize("nested", ["forward", "generate"])
def test_a_call_inside_a_generation_is_pruned_on_its_own(family, nested):
    model, other = tiny.build(family), inputs_of(family, OTHER)
    lengths = []

    def judge(ids: Tensor, scores: Tensor) -> Tensor:
        if nested == "forward":
            lengths.append(model(**other).logits.shape[1])
        else:
            lengths.append(cache_of(model.generate(**other, max_new_tokens=2, **GREEDY)).get_seq_length() - 1)
        return scores

    with torch.no_grad(), sharpv.apply(model, memory=tiny.HIGH_M) as handle:
        alone = model(**other).logits.shape[1]
        plain = model.generate(**inputs_of(family), max_new_tokens=3, **GREEDY)
        report = str(handle.report)
        out = model.generate(
            **inputs_of(family), max_new_tokens=3, **GREEDY, logits_processor=LogitsProcessorList([judge])
        )
        assert str(handle.report) == report == str(handle.report_of(out))
    assert alone < other["input_ids"].shape[1] and lengths == [alone] * 3
    assert torch.equal(seen(out)[0], seen(plain)[0]) and seen(out)[1] == seen(plain)[1]


class Gate:
    """A streamer that waits at its n-th piece: 1 is the prompt, before anything is read."""

    def __init__(self, at: int) -> None:
        self.left, self.reached, self.open = at, threading.Event(), threading.Event()

    def put(self, value: Tensor) -> None:
        self.left -= 1
        if self.left == 0:
            self.reached.set()
            assert self.open.wait(60)

    def end(self) -> None:
        pass


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("family", TYPES)
@pytest.mark.parametrize("stage", ["cosine", "fastv"])
def test_a_generation_that_still_runs_when_pruning_is_removed_ends_as_it_began(family, stage, at):
    model, inputs = tiny.build(family), inputs_of(family)
    options = {"memory": STAGES[stage]}
    with sharpv.apply(model, **options):
        expected = seen(model.generate(**inputs, max_new_tokens=4, **GREEDY))
    dense = model.generate(**_stock(model, inputs), max_new_tokens=4, **GREEDY)
    gate = Gate(at)
    with ThreadPoolExecutor(1) as pool:
        with sharpv.apply(model, **options) as handle:
            job = pool.submit(lambda: model.generate(**inputs, max_new_tokens=4, **GREEDY, streamer=gate))
            assert gate.reached.wait(60)
        assert not handle.active and not handle.finished and sharpv.Pruning.of(model) is None
        # new calls are dense already, and pruning anew is possible where the two would not meet inside
        assert torch.equal(seen(model.generate(**_stock(model, inputs), max_new_tokens=4, **GREEDY))[0], seen(dense)[0])
        with pytest.raises(ValueError, match="still runs on this model, and both act inside it"):
            sharpv.apply(model, memory=0.2)
        second = sharpv.apply(model, memory=None)
        gate.open.set()
        logits, stored = seen(job.result())
    assert torch.equal(logits, expected[0]) and stored == expected[1]
    assert handle.finished and sharpv.Pruning.of(model) is second
    second.remove()
    assert not {"generate", "forward"} & vars(model).keys()
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.get_decoder().layers)


def _stock(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != "video_frames"}


# interruptions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", TYPES)
@pytest.mark.parametrize("memory", [None, tiny.HIGH_M])
def test_a_cache_that_an_interrupted_pass_left_is_refused(family, memory):
    model, inputs = tiny.build(family), inputs_of(family)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with torch.no_grad(), sharpv.apply(model, memory=memory):
        expected = model.generate(**inputs, max_new_tokens=3, **GREEDY)
        cache = DynamicCache(config=model.config)
        hook = model.get_decoder().layers[2].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            model(**inputs, **on(cache))
        hook.remove()
        for again in ({"input_ids": torch.tensor([[16]])}, inputs):
            with pytest.raises(ValueError, match=r"left by an interrupted pass, its layers hold 0 to \d+ tokens"):
                model(**again, **on(cache))
            with pytest.raises(ValueError, match="left by an interrupted pass"):
                model.generate(**again, **on(cache), max_new_tokens=2)
        assert torch.equal(seen(model.generate(**inputs, max_new_tokens=3, **GREEDY))[0], seen(expected)[0])


# wrapping -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["apply", "prepare"])
@pytest.mark.parametrize("last", ["unwrap", "remove"])
def test_accelerate_wraps_and_unwraps_in_any_order(first, last):
    from accelerate import Accelerator

    model, inputs = tiny.make("llava_onevision"), inputs_of("llava_onevision")
    dense = model(**inputs).logits.shape[1]
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    if first == "prepare":
        model = accelerator.prepare(model)
    handle = sharpv.apply(model, memory=None)
    if first == "apply":
        model = accelerator.prepare(model)

    def kept() -> int:
        model.generate(**inputs, max_new_tokens=2)
        return model(**inputs).logits.shape[1]

    pruned = kept()
    assert pruned < dense
    if last == "remove":  # while it is wrapped
        handle.remove()
        assert kept() == dense
    model = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    if last == "unwrap":
        assert kept() == pruned
        handle.remove()
    assert kept() == dense
    assert sharpv.Pruning.of(model) is None and "generate" not in vars(model)
    if (first, last) == ("apply", "unwrap"):
        assert "forward" not in vars(model)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_pruning_and_a_wrapper_come_off_in_any_order(order):
    """torch.compile, a profiler, a logger: what wraps the cover goes on after it is off."""
    model, inputs = tiny.make("llava_onevision"), inputs_of("llava_onevision")
    dense = model(**inputs).logits
    handle = sharpv.apply(model, memory=None)
    covered = model.forward
    vars(model)["forward"] = functools.wraps(covered)(lambda *args, **kwargs: covered(*args, **kwargs))
    assert model(**inputs).logits.shape[1] < dense.shape[1]

    def unwrap() -> None:
        vars(model)["forward"] = covered

    for step in order:
        (handle.remove, unwrap)[step]()
    assert torch.equal(model(**inputs).logits, dense) and sharpv.Pruning.of(model) is None


def test_dataparallel_and_peft_run_what_they_wrap():
    from peft import LoraConfig, get_peft_model

    model, inputs = tiny.make("qwen2_5_vl"), inputs_of("qwen2_5_vl")
    dense = model(**inputs).logits
    with sharpv.apply(model, memory=None):
        pruned = nn.DataParallel(model)(**inputs).logits
        wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
        torch.testing.assert_close(wrapped(**inputs).logits, pruned, atol=1e-5, rtol=0)
        base = wrapped.unload()
    assert base is model and pruned.shape[1] < dense.shape[1]
    assert torch.equal(model(**inputs).logits, dense) and not {"generate", "forward"} & vars(model).keys()


def test_a_copy_that_is_bound_to_its_original_is_refused():
    """copy.deepcopy does not copy what a bound method is bound around."""
    model = tiny.make("llava_onevision")
    with sharpv.apply(model, memory=None):
        vars(model)["forward"] = type(model.generate.__call__)(model.forward, model)  # as unwrap_model does
        copied = copy.deepcopy(model)
        with pytest.raises(ValueError, match="carries the pruning of the model that it was copied from"):
            copied(**inputs_of("llava_onevision"))


@pytest.mark.parametrize("memory", [None, 0.2])
def test_a_pruned_model_is_not_stored_whole(memory):
    model = tiny.make("llava_onevision")
    with sharpv.apply(model, memory=memory):
        for store in (torch.save, pickle.dump):
            with pytest.raises(pickle.PicklingError, match=r"call remove\(\) first, or store save_pretrained"):
                store(model, io.BytesIO())
        assert isinstance(copy.deepcopy(model).forward, Cover)
    torch.save(model, io.BytesIO())


# later turns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", TYPES)
@pytest.mark.parametrize("memory", [None, tiny.HIGH_M])
@pytest.mark.parametrize("by_hand", [False, True], ids=["generate", "forward"])
def test_a_later_turn_must_go_on_with_what_is_cached(family, memory, by_hand):
    model, inputs = tiny.build(family), inputs_of(family, TWO)
    turn = torch.tensor([[16, 17], [17, 16]])
    with torch.no_grad(), sharpv.apply(model, memory=memory):
        if by_hand:
            out = model(**inputs, use_cache=True)
            said = torch.tensor([[20, 21, 22], [23, 24, 25]])
            for token in said[:, :2].T:
                model(input_ids=token[:, None], **on(cache_of(out)))
            said = torch.cat([inputs["input_ids"], said], dim=1)
        else:
            out = model.generate(**inputs, max_new_tokens=3, **GREEDY)
            said = out.sequences
        whole = torch.cat([said, turn], dim=1)
        mask = torch.cat([inputs["attention_mask"], torch.ones(2, 5, dtype=torch.long)], dim=1)
        length = inputs["input_ids"].shape[1]
        other = whole.clone()
        other[1, length + 1] += 1
        ask = {"max_new_tokens": 2, "do_sample": False, **on(cache_of(out))}
        with pytest.raises(ValueError, match=f"differs from what the cache holds at token {length + 1}"):
            model.generate(input_ids=other, attention_mask=mask, **ask)
        beams = {**ask, "num_beams": 2}
        with pytest.raises(
            ValueError, match=r"holds 2 rows, but this turn decodes 4 .*call its batch_repeat_interleave\(2\)"
        ):
            model.generate(input_ids=whole, attention_mask=mask, **beams)
        # a token that the mask hides is not compared, and the last one said is not in the cache
        hidden = mask.clone()
        hidden[1, length + 1] = 0
        copied = copy.deepcopy(ask)
        assert model.generate(input_ids=other, attention_mask=hidden, **copied).shape[1] == length + 7
        wide = copy.deepcopy(cache_of(out))
        wide.batch_repeat_interleave(2)
        answered = model.generate(input_ids=whole, attention_mask=mask, **{**beams, **on(wide)})
        assert answered.shape == (2, length + 7)
        with pytest.raises(ValueError, match="holds 4 rows, but this turn decodes 2 .*start with a new cache"):
            model.generate(input_ids=answered, attention_mask=torch.ones_like(answered), **{**ask, **on(wide)})
        assert model.generate(input_ids=whole, attention_mask=mask, **ask).shape[1] == length + 7


def test_paged_caches_are_refused():
    with (
        sharpv.apply(tiny.build("llava_onevision"), memory=None),
        pytest.raises(ValueError, match="'paged' reads prompts without their videos"),
    ):
        tiny.build("llava_onevision").generate(
            **inputs_of("llava_onevision"), cache_implementation="paged", max_new_tokens=2
        )


class BlockMask:
    """Stands in for what flex_attention hands to the layers."""


@pytest.mark.parametrize("options", [{"memory": tiny.HIGH_M}, {"memory": "fastv"}])
def test_masks_that_are_no_tensors_are_refused_before_prefill(options, monkeypatch):
    model, inputs = tiny.make("llava_onevision"), inputs_of("llava_onevision")
    entered: list[int] = []
    first = model.get_decoder().layers[0]
    first.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "attention_mask": BlockMask()}), with_kwargs=True
    )
    with sharpv.apply(model, **options):
        first.self_attn.register_forward_pre_hook(lambda *_: entered.append(1))
        for call in (model.generate, model):
            with pytest.raises(ValueError, match="masks that are tensors, got BlockMask"):
                call(**inputs, **({"max_new_tokens": 2} if call == model.generate else {}))
    assert not entered
