"""The door: every way people run a model, exact removal, and refusals in one sentence."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import DynamicCache, GenerationConfig, GPT2Config, GPT2LMHeadModel

import sharpv
import tiny
from reference import cache_of, full_positions, on, patch_columns, prompt_logits, pruned_prompt, reference_logits, stock
from sharpv import Config, SharpV
from sharpv.methods import Uniform
from sharpv.models import find_family
from sharpv.models.base import RAW_PIXELS
from sharpv.prompt.prune import prune
from tiny import Clip

PROMPTS: list[list[tiny.Part]] = [[10, 11, Clip(1), 12, 13, 14], [10, Clip(2), 15]]
ONE = PROMPTS[:1]
GREEDY = dict(do_sample=False, return_dict_in_generate=True, output_logits=True, output_scores=True)


def inputs_of(family: str, prompts: list[list[tiny.Part]] = PROMPTS, **options: Any) -> dict[str, Any]:
    return tiny.FAMILIES[family].inputs(prompts, **options)


def logits_of(out: Any) -> Tensor:
    return torch.stack(out.logits, dim=1)


# what comes back ------------------------------------------------------------------------------------------------------


def test_a_transformers_that_is_too_old_for_a_family_is_refused(monkeypatch):
    monkeypatch.setattr("transformers.__version__", "5.20.1")
    with pytest.raises(ValueError, match=r"SmolVLM needs transformers >= 5\.21, this is 5\.20\.1"):
        sharpv.apply(tiny.build("smolvlm"))
    sharpv.apply(tiny.build("internvl")).remove()


def test_sequences_begin_with_the_full_prompt(model, family):
    inputs = inputs_of(family)
    length = inputs["input_ids"].shape[1]
    with sharpv.apply(model):
        bare = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        positional = model.generate(inputs.pop("input_ids"), **inputs, max_new_tokens=4, do_sample=False)
    assert bare.shape[1] == length + 4 and torch.equal(bare, positional)
    assert torch.equal(bare[:, :length], inputs_of(family)["input_ids"])


@pytest.mark.parametrize("where", ["call", "config", "model"])
def test_max_length_counts_the_full_prompt(model, family, where):
    inputs = inputs_of(family)
    length = inputs["input_ids"].shape[1]
    limits: dict[str, Any] = {"max_length": length + 3, "min_length": length + 3}
    with sharpv.apply(model):
        if where == "call":
            out = model.generate(**inputs, **limits)
        elif where == "config":
            out = model.generate(**inputs, generation_config=GenerationConfig(**limits, pad_token_id=tiny.PAD))
        else:
            before = copy.deepcopy(model.generation_config)
            model.generation_config.update(**limits)
            out = model.generate(**inputs)
            model.generation_config = before
    assert out.shape[1] == length + 3


class Recorder:
    def __init__(self) -> None:
        self.pieces: list[list[int]] = []
        self.ended = False

    def put(self, value: Tensor) -> None:
        self.pieces.append(value.flatten().tolist())

    def end(self) -> None:
        self.ended = True


def test_a_streamer_sees_the_full_prompt_first(model, family):
    inputs, recorder = inputs_of(family, ONE), Recorder()
    with sharpv.apply(model):
        out = model.generate(**inputs, max_new_tokens=4, streamer=recorder)
    assert recorder.pieces[0] == inputs["input_ids"][0].tolist()
    assert [token for piece in recorder.pieces for token in piece] == out[0].tolist() and recorder.ended


# modes ----------------------------------------------------------------------------------------------------------------


def test_beams_on_several_videos_a_prompt_compare_per_row(model, family):
    prompts = [PROMPTS[0], [10, Clip(3), 11, 12, Clip(4), 13]]
    inputs = inputs_of(family, prompts)
    with sharpv.apply(model, "sharpv", memory=None):
        together = model.generate(**inputs, max_new_tokens=4, num_beams=3, num_return_sequences=3, **GREEDY)
        for row, prompt in enumerate(prompts):
            alone = model.generate(
                **inputs_of(family, [prompt]), max_new_tokens=4, num_beams=3, num_return_sequences=3, **GREEDY
            )
            rows = slice(3 * row, 3 * row + 3)
            torch.testing.assert_close(logits_of(together)[rows, 0], logits_of(alone)[:, 0], atol=1e-5, rtol=0)
            torch.testing.assert_close(together.sequences_scores[rows], alone.sequences_scores, atol=1e-5, rtol=0)
            assert torch.equal(together.sequences[rows, -4:], alone.sequences[:, -4:])


def test_no_cache(model, family):
    inputs = inputs_of(family)
    with sharpv.apply(model, memory=None, positions="packed"):
        cached = model.generate(**inputs, max_new_tokens=3, **GREEDY)
        uncached = model.generate(**inputs, max_new_tokens=3, use_cache=False, **GREEDY)
    torch.testing.assert_close(logits_of(cached), logits_of(uncached), atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_forward_with_labels(model, family, side):
    inputs = inputs_of(family, side=side)
    labels = torch.where(inputs["input_ids"] < 10, -100, inputs["input_ids"])
    with sharpv.apply(model, memory=None):
        out = model(**inputs, labels=labels)
    prompt = pruned_prompt(cache_of(out))
    assert out.logits.shape[1] == prompt.keep.sum(1).max()
    for row, reference in enumerate(prompt_logits(model, inputs, prompt.keep)):
        real = prompt.inputs["attention_mask"][row].bool()
        torch.testing.assert_close(out.logits[row, real], reference, atol=1e-5, rtol=0)
    # the loss of the survivors' own next tokens
    kept_labels = prompt.inputs["labels"]
    expected = nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), kept_labels[:, 1:].flatten())
    torch.testing.assert_close(out.loss, expected)
    assert (kept_labels != -100).sum() == (labels != -100).sum()


@pytest.mark.parametrize("positions", ["original", "packed"])
@pytest.mark.parametrize("with_mask", [True, False])
def test_a_decoding_loop_by_hand_equals_generate(model, family, positions, with_mask):
    prompts = PROMPTS if with_mask else ONE
    inputs = inputs_of(family, prompts)
    with sharpv.apply(model, memory=tiny.HIGH_M, positions=positions):
        expected = model.generate(**inputs, max_new_tokens=4, **GREEDY)
        new = expected.sequences[:, -4:]
        out = model(**inputs, use_cache=True)
        steps, mask = [out.logits[:, -1]], inputs["attention_mask"]
        for step in range(3):
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)  # as if nothing had been pruned
            extra = {"attention_mask": mask} if with_mask else {}
            out = model(input_ids=new[:, step : step + 1], **on(cache_of(out)), **extra)
            steps.append(out.logits[:, -1])
    torch.testing.assert_close(torch.stack(steps, dim=1), logits_of(expected), atol=1e-5, rtol=0)


def test_packed_positions_number_the_shorter_prompt(model, family):
    inputs = inputs_of(family)
    with sharpv.apply(model, positions="packed"):
        out = model.generate(**inputs, max_new_tokens=1, **GREEDY)
    prompt = pruned_prompt(cache_of(out))
    for row, real in enumerate(prompt.inputs["attention_mask"].bool()):
        numbered = prompt.inputs["position_ids"][..., row, :][..., real]
        assert torch.equal(numbered, torch.arange(int(real.sum())).expand_as(numbered))


# mixed prompts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt",
    [[10, Clip(1), 11, Clip(5, image=True), 12], [10, Clip(5, image=True), 11, Clip(1), 12, Clip(2), 13]],
    ids=["video, image", "image, two videos"],
)
@pytest.mark.parametrize("family", [name for name, family in tiny.FAMILIES.items() if family.images_beside])
def test_images_beside_videos_are_untouched(model, family, prompt):
    inputs = inputs_of(family, [prompt])
    with sharpv.apply(model, memory=None):
        out = model.generate(**inputs, max_new_tokens=3, **GREEDY)
    keep = pruned_prompt(cache_of(out)).keep
    image = (inputs["input_ids"] == model.config.image_token_id) & ~patch_columns(model, inputs)
    assert image.any() and keep[image].all() and not keep.all()
    reference = reference_logits(model, inputs, keep, out.sequences[:, -3:])
    torch.testing.assert_close(logits_of(out), reference, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", [name for name, family in tiny.FAMILIES.items() if not family.images_beside])
def test_images_beside_videos_are_refused_where_the_model_cannot_tell_them(model, family):
    inputs = inputs_of(family, [[10, Clip(1), 11, Clip(5, image=True), 12]])
    with sharpv.apply(model), pytest.raises(ValueError, match="one placeholder for both: pass images and videos in"):
        model.generate(**inputs, max_new_tokens=3)


@pytest.mark.parametrize("family", ["internvl", "smolvlm"])
def test_frames_that_are_images_must_be_named(model, family):
    inputs = inputs_of(family, ONE)
    assert inputs["video_frames"] == [4]
    with sharpv.apply(model, memory=None) as handle:
        by_number = model.generate(**inputs, max_new_tokens=2)
        by_span = model.generate(**{**inputs, "video_frames": [(0, 4)]}, max_new_tokens=2)
        assert torch.equal(by_number, by_span) and handle.report.total == 36
        two = model.generate(**{**inputs, "video_frames": [1, 3]}, max_new_tokens=2)
        assert [video.frames for video in handle.report.videos] == [1, 3] and two.shape == by_span.shape
        model.generate(**{**inputs, "video_frames": [(1, 3)]}, max_new_tokens=2)
        assert handle.report.total == 18  # the first and the last image are stills
        last = handle.report
        still = model.generate(**{**inputs, "video_frames": []}, max_new_tokens=2)
        assert handle.report is last
        logits = model(**{**inputs, "video_frames": []}).logits
        for frames, message in (
            (None, "its inputs do not tell them from stills: pass video_frames="),
            ([3], r"video_frames=\[3\] names 3 frames, but there are 4 images"),
            ([5], r"video_frames=\[5\] names 5 frames, but there are 4 images"),
            ([0, 4], r"must hold numbers of frames or rising \(start, stop\) pairs, got \[0, 4\]"),
            ([(2, 4), (1, 2)], "or rising"),
        ):
            with pytest.raises(ValueError, match=message):
                model.generate(**{**inputs, "video_frames": frames}, max_new_tokens=2)
            with pytest.raises(ValueError, match=message):
                sharpv.trim(tiny.make(family), {**inputs, "video_frames": frames})
    assert torch.equal(still, model.generate(**stock(inputs), max_new_tokens=2))
    assert torch.equal(logits, model(**stock(inputs)).logits)
    assert "video_frames" not in sharpv.trim(model, inputs)


def test_a_sample_without_a_video_in_the_batch(model, family):
    prompts = [PROMPTS[0], [10, 11, 12, 13]]
    with sharpv.apply(model, memory=tiny.HIGH_M):
        together = model.generate(**inputs_of(family, prompts), max_new_tokens=3, **GREEDY)
    alone = model.generate(**inputs_of(family, prompts[1:]), max_new_tokens=3, **GREEDY)
    torch.testing.assert_close(logits_of(together)[1], logits_of(alone)[0], atol=1e-5, rtol=0)


def test_videos_of_different_sizes(family):
    model = tiny.build(family)
    if find_family(model).positions == "1d":
        return  # towers of a fixed input size: the processor makes all videos of a batch equally large
    prompt: list[tiny.Part] = [10, Clip(1, frames=3, height=2, width=4), 11, Clip(2, frames=5, height=3, width=2), 12]
    with sharpv.apply(model, retention=0.5, memory=None) as handle:
        model.generate(**inputs_of(family, [prompt, ONE[0]]), max_new_tokens=2)
    kept = [(v.sample, v.total, v.kept_tokens) for v in handle.report.videos]
    assert kept == [(0, 24, 12), (0, 30, 15), (1, 36, 18)]


# turns ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [None, tiny.HIGH_M])
@pytest.mark.parametrize("prompts", [ONE, PROMPTS], ids=["one", "padded batch"])
@pytest.mark.parametrize("pixels_again", [False, True])
def test_three_turns_on_one_cache(model, family, prompts, memory, pixels_again):
    inputs = inputs_of(family, prompts)
    with sharpv.apply(model, memory=memory) as handle:
        cache = DynamicCache(config=model.config)
        first = model.generate(**inputs, **on(cache), max_new_tokens=3, **GREEDY)
        turns, logits = [first], [logits_of(first)]
        for question in (16, 17):
            ids = torch.cat([turns[-1].sequences, torch.full((len(prompts), 2), question)], dim=1)
            mask = torch.cat(
                [inputs["attention_mask"], ids.new_ones(len(ids), ids.shape[1] - inputs["attention_mask"].shape[1])], 1
            )
            again = {**(inputs if pixels_again else {}), "input_ids": ids, "attention_mask": mask}
            if "mm_token_type_ids" in again:
                again["mm_token_type_ids"] = tiny.FAMILIES[family].types(ids)
            turns.append(model.generate(**again, **on(cache), max_new_tokens=3, **GREEDY))
            logits.append(logits_of(turns[-1]))
        report = handle.report
    assert report is not None and len(report.videos) == len(prompts)
    assert memory is None or any(any(row) for row in report.forgotten)
    new = turns[-1].sequences[:, inputs["input_ids"].shape[1] :]
    reference = reference_logits(model, inputs, pruned_prompt(cache).keep, new, report.forgotten)
    for turn, got in enumerate(logits):
        torch.testing.assert_close(got, reference[:, 5 * turn : 5 * turn + 3], atol=1e-5, rtol=0)


def test_a_new_video_in_a_later_turn_is_refused(model, family):
    inputs = inputs_of(family, ONE)
    with sharpv.apply(model):
        cache = DynamicCache(config=model.config)
        first = model.generate(**inputs, **on(cache), max_new_tokens=2)
        both = inputs_of(family, [[*ONE[0], *first[0, -2:].tolist(), Clip(9), 12]])
        with pytest.raises(ValueError, match="a new image or video in a later turn on a pruned cache"):
            model.generate(**both, **on(cache), max_new_tokens=2)
        with pytest.raises(ValueError, match="this cache holds another pruned prompt"):
            model.generate(**inputs_of(family, PROMPTS[1:]), **on(cache), max_new_tokens=2)
        with pytest.raises(ValueError, match="an image or video was passed together with a cache"):
            model(**inputs, **on(cache))
    text = inputs_of(family, [[10, 11, 12]])
    with sharpv.apply(model):
        cache = DynamicCache(config=model.config)
        model.generate(**text, **on(cache), max_new_tokens=2)
        with pytest.raises(ValueError, match="a new video in a later turn cannot be pruned into a cache that already"):
            model.generate(**inputs, **on(cache), max_new_tokens=2)


# on and off -----------------------------------------------------------------------------------------------------------


def test_applying_twice_is_refused_and_removing_twice_is_not(model):
    handle = sharpv.apply(model)
    with pytest.raises(ValueError, match="already pruned by sharpv"):
        sharpv.apply(model, "uniform", retention=0.5)
    assert sharpv.Pruning.of(model) is handle and "active" in repr(handle)
    handle.remove()
    handle.remove()
    assert sharpv.Pruning.of(model) is None and "removed" in repr(handle)
    with sharpv.apply(model, "uniform", retention=0.5):
        pass


def test_an_error_inside_leaves_the_model_as_it_was(model, family):
    with pytest.raises(RuntimeError, match="mine"), sharpv.apply(model):
        raise RuntimeError("mine")
    assert sharpv.Pruning.of(model) is None
    with pytest.raises(ValueError, match="no"), sharpv.apply(model, memory=tiny.HIGH_M) as handle:
        model.generate(**inputs_of(family), max_new_tokens=2, logits_processor=[_Refuse()])
    assert sharpv.Pruning.of(model) is None and handle.report is None


class _Refuse:
    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        raise ValueError("no")


def test_a_deepcopy_is_pruned_on_its_own(family):
    model, inputs = tiny.make(family), inputs_of(family)
    handle = sharpv.apply(model, memory=tiny.HIGH_M)
    copied = copy.deepcopy(model)
    theirs = sharpv.Pruning.of(copied)
    assert theirs is not None and theirs is not handle and theirs.model is copied
    expected = model.generate(**inputs, max_new_tokens=3, **GREEDY)
    # the copy uses its own weights: change the original's, the copy's answer stays
    with torch.no_grad():
        model.lm_head.weight.neg_()
    got = copied.generate(**inputs, max_new_tokens=3, **GREEDY)
    assert torch.equal(logits_of(got), logits_of(expected)) and theirs.report.forgotten == handle.report.forgotten
    handle.remove()
    assert torch.equal(logits_of(copied.generate(**inputs, max_new_tokens=3, **GREEDY)), logits_of(expected))
    theirs.remove()
    assert sharpv.Pruning.of(copied) is None
    assert not any(m._forward_pre_hooks for m in copied.get_decoder().layers)
    with torch.no_grad():
        model.lm_head.weight.neg_()
    dense, again = (m.generate(**stock(inputs), max_new_tokens=3, **GREEDY) for m in (model, copied))
    assert torch.equal(logits_of(dense), logits_of(again)) and not torch.equal(logits_of(dense), logits_of(expected))


# trim -----------------------------------------------------------------------------------------------------------------


def test_trim_gives_what_apply_gives_and_patches_nothing(model, family):
    inputs = inputs_of(family)
    with sharpv.apply(model, memory=None, retention=0.3):
        expected = model.generate(**inputs, max_new_tokens=4, **GREEDY)
    trimmed = sharpv.trim(model, inputs, "sharpv", retention=0.3)
    assert sharpv.Pruning.of(model) is None
    out = model.generate(**trimmed, max_new_tokens=4, **GREEDY)
    assert torch.equal(logits_of(out), logits_of(expected))
    assert out.sequences.shape[1] == trimmed["input_ids"].shape[1] + 4 < inputs["input_ids"].shape[1]
    text = inputs_of(family, [[10, 11]])
    assert sharpv.trim(model, text).keys() == text.keys()


def test_beams_on_a_trimmed_batch_are_right_or_refused(model, family):
    inputs = inputs_of(family)
    trimmed = sharpv.trim(model, inputs)
    if find_family(model).batched_features:
        with pytest.raises(ValueError, match="cannot be expanded for beams"):
            model.generate(**trimmed, num_beams=2, max_new_tokens=2)
        return
    with sharpv.apply(model, memory=None):
        expected = model.generate(**inputs, num_beams=2, max_new_tokens=2, **GREEDY)
    got = model.generate(**trimmed, num_beams=2, max_new_tokens=2, **GREEDY)
    torch.testing.assert_close(got.sequences_scores, expected.sequences_scores)


# hot path -------------------------------------------------------------------------------------------------------------


class SyncCounter(TorchFunctionMode):
    """Counts what would make a GPU wait for the host."""

    SYNCS = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero", "cpu", "numpy", "equal",
             "unique", "masked_select", "argwhere", "allclose"}  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in self.SYNCS:
            self.seen.append(name)
        if name in ("__getitem__", "__setitem__"):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(i, Tensor) and (i.dtype == torch.bool or i.ndim == 0) for i in index):
                self.seen.append(f"{name} by mask or scalar tensor")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", [SharpV(), Uniform()])
def test_one_host_synchronisation_per_prompt(model, family, method, monkeypatch):
    inputs = inputs_of(family, [[10, Clip(1), 11, Clip(2), 12], ONE[0]])
    own = find_family(model)
    config = Config(method, retention=0.3)
    # transformers' own part: the vision tower, the positions, and reading video_grid_thw, which it reads too
    encoded = own.encode(model, own.modality, inputs)
    layouts = own.layouts(model, inputs, sum(rows.shape[:-1].numel() for rows in encoded.pooler_output))
    positions = full_positions(model, inputs)
    monkeypatch.setattr(type(own), "encode", lambda *_: encoded)
    monkeypatch.setattr("sharpv.prompt.prune.full_positions", lambda *_: positions)
    stub = copy.copy(own)
    object.__setattr__(stub, "layouts", lambda *_: layouts)
    with SyncCounter() as counter:
        prune(model, stub, config, inputs)
    assert counter.seen == ["tolist"]


# refusals -------------------------------------------------------------------------------------------------------------


def test_models_that_are_not_supported_are_refused():
    text = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16))
    with pytest.raises(ValueError, match="model type 'gpt2' is not supported; supported: glm46v"):
        sharpv.apply(text)
    with pytest.raises(TypeError, match="expected a transformers model that can generate, got Linear"):
        sharpv.apply(nn.Linear(2, 2))
    assert set(tiny.FAMILIES) <= set(sharpv.list_models()) and sharpv.list_models() == sorted(sharpv.list_models())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"config": "magic"},
            ValueError,
            "unknown method 'magic'; known: cdpruner, divprune",
        ),
        ({"config": "uniform"}, ValueError, "method 'uniform' keeps a fixed share: pass retention="),
        ({"retention": 1.5}, ValueError, r"must lie in \(0, 1\], got 1.5"),
        ({"positions": "learned"}, ValueError, "positions must be 'original' or 'packed', got 'learned'"),
        ({"memory": 2.0}, ValueError, r"must lie in \[-1, 1\], got 2.0"),
        ({"memory": "high"}, ValueError, "unknown memory 'high'; known: contribution, cosine"),
        ({"max_tokens": 0}, ValueError, "max_tokens must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_patched(model, options, error, message):
    with pytest.raises(error, match=message):
        sharpv.apply(model, **options)
    assert sharpv.Pruning.of(model) is None


def test_bad_inputs_are_refused(model, family):
    inputs = inputs_of(family, ONE)
    with sharpv.apply(model):
        broken = dict(inputs, input_ids=inputs["input_ids"].clone())
        broken["input_ids"][0, 5:9] = 10
        with pytest.raises(ValueError, match="video placeholder tokens, but the videos have"):
            model.generate(**broken, max_new_tokens=2)
        embedded = {k: v for k, v in inputs.items() if k != "input_ids"}
        with pytest.raises(ValueError, match="pass input_ids, not inputs_embeds"):
            model(**embedded, inputs_embeds=torch.zeros(1, inputs["input_ids"].shape[1], 64))
        pixels = RAW_PIXELS[find_family(model).modality]
        spoiled = {**inputs, pixels: inputs[pixels] * float("nan")}
        with pytest.raises(ValueError, match="video 0 has the feature nan at frame 0, token 0"):
            model.generate(**spoiled, max_new_tokens=2)
        if find_family(model).positions == "1d":
            with pytest.raises(ValueError, match="use_cache=False has transformers read gaps"):
                model.generate(**inputs, use_cache=False, max_new_tokens=2)
        else:
            del inputs["mm_token_type_ids"]
            with pytest.raises(ValueError, match="needs mm_token_type_ids"):
                model.generate(**inputs, max_new_tokens=2)
