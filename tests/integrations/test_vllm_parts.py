"""What the vLLM plugin is made of, without vLLM: options, counts, positions. With vLLM: ``tests/integrations/vllm``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpv import Config, SharpV
from sharpv.config import options
from sharpv.integrations.vllm.options import HONOURED, REASONS, Options
from sharpv.integrations.vllm.positions import Medium, full_positions, place, with_positions, without_positions
from sharpv.integrations.vllm.selection import (
    Shown,
    count,
    encoded,
    keep,
    refuse_inexact,
    shown_patches,
    shown_pictures,
)
from sharpv.methods import METHODS, Method, Scores, Selection
from sharpv.vision.pixels import Pixels

VIDEO, IMAGE, TEXT, LEAD = 7, 6, 0, 3


def config(asked=None, method="evs", rate=0.75):
    multimodal = SimpleNamespace(video_pruning_method=method, video_pruning_rate=rate)
    hf = SimpleNamespace() if asked is None else SimpleNamespace(sharpv=asked)
    return SimpleNamespace(multimodal_config=multimodal, hf_config=hf)


# ------------------------------------------------------------------------------------------------------ options


def exact(retention: float = 0.25, **fields) -> Options:
    return Options(Config(retention=retention, **fields))


def pixels(retention: float = 0.75, gain: float = 1.0, **fields) -> Options:
    return Options(Config(retention=retention, **fields), counting="pixels", gain=gain)


def test_off_unless_the_method_or_the_overrides_say_so():
    assert Options.of(config()) is None
    assert Options.of(config(method="sharpv")) == exact()
    assert Options.of(config({"counting": "pixels", "gain": 2.0})) == pixels(0.25, gain=2.0)


def test_they_are_one_configuration_and_come_back_as_they_went(tmp_path):
    asked = {"method": "sharpv:weight=0.5", "max_tokens": 40, "min_tokens_per_frame": 2}
    found = Options.of(config(asked))
    assert found == exact(method=SharpV(weight=0.5), max_tokens=40, min_tokens_per_frame=2)
    assert Options.of(config(json.loads(json.dumps(found.to_dict())))) == found
    file = tmp_path / "mine.json"
    found.config.save(file)
    assert Options.of(config({"config": str(file)})) == found
    assert Options.of(config({"config": str(file), "max_tokens": 30})).config == Config.of(found.config, max_tokens=30)
    assert Options.of(config({"method": "uniform"})).config.retention == 0.25
    assert Options.of(config({}, rate=0.9)).config.retention == 0.1


def test_every_field_of_a_configuration_is_followed_or_refused_with_a_reason():
    assert {*HONOURED, *REASONS} == {each.name for each in options()}


@pytest.mark.parametrize(
    ("asked", "rate", "says"),
    [
        ({"memory": 0.2}, 0.75, "stage 2"),
        ({"positions": "packed"}, 0.75, "positions='packed' is not possible"),
        ({"encode": "chnged"}, 0.75, "unknown encode 'chnged', did you mean 'changed'"),
        ({"frames_at_once": 4}, 0.75, "max-num-batched-tokens, not by frames_at_once=4"),
        ({"retention": 0.5}, 0.75, "retention=0.5 is not what --video-pruning-rate 0.75 leaves, 0.25"),
        ({"retention": "most"}, 0.75, "retention='most' is not what"),
        ({"gian": 2}, 0.75, "no option 'gian'"),
        ({"counting": "adaptive"}, 0.75, "'exact' or 'pixels', got 'adaptive'"),
        ({"gain": 0}, 0.75, "above 0, got 0"),
        ({"gain": "much"}, 0.75, "above 0, as a plain number, got 'much'"),
        ({"gain": 2}, 0.75, "factor on counting='pixels', got 2"),
        ({"min_tokens_per_frame": -1}, 0.75, "at least 0, got -1"),
        ({"method": {"name": "sharpv", "weight": float("nan")}}, 0.75, "finite number of at least 0, got nan"),
        ({"method": "sharp"}, 0.75, "unknown method 'sharp', did you mean 'sharpv'"),
        ({"method": 3}, 0.75, "method must be a name"),
        ({"method": "cdpruner"}, 0.75, "'cdpruner' wants to know the question"),
        ({"config": "/nowhere/mine.json"}, 0.75, "No such file .*mine.json"),
        ("adaptive", 0.75, "got 'adaptive'"),
        ({}, 0.0, "--video-pruning-rate"),
        ({}, None, "--video-pruning-rate"),
    ],
)
def test_what_does_not_exist_is_refused_in_a_sentence(asked, rate, says):
    with pytest.raises(ValueError, match=says):
        Options.of(config(asked, rate=rate))


# ------------------------------------------------------------------------------------------------------- counts


def shown(looks: torch.Tensor) -> Shown:
    return Shown(Pixels(looks, (1, looks.shape[1]), (1, looks.shape[1])), lambda: looks)


def moving(frames: int, tokens: int, share: float) -> torch.Tensor:
    """Pixels of a video of which this share of tokens changes from frame to frame."""
    generator = torch.Generator().manual_seed(1)
    still = torch.randn(1, tokens, 12, generator=generator).expand(frames, -1, -1).clone()
    changed = torch.rand(frames, tokens, 1, generator=generator) < share
    return torch.where(changed, torch.randn(frames, tokens, 12, generator=generator), still)


def test_a_budget_is_met_whatever_is_shown_and_the_adaptive_count_follows_the_content():
    still, busy = shown(moving(8, 49, 0.05)), shown(moving(8, 49, 0.8))
    budget, adaptive = exact(), pixels()
    assert count(still, budget) == count(busy, budget) == 98
    assert 0 < count(still, adaptive) < count(busy, adaptive) <= 294
    assert count(busy, pixels(0.1)) == 39  # the rate is the ceiling
    assert count(busy, exact(max_tokens=60)) == count(busy, pixels(max_tokens=60)) == 60
    assert count(still, pixels(gain=3.0)) > count(still, adaptive)
    assert count(still, pixels(min_tokens_per_frame=5)) >= 40
    with pytest.raises(ValueError, match="min_tokens_per_frame=20"):
        count(still, exact(min_tokens_per_frame=20))
    for asked in (budget, adaptive):
        with pytest.raises(ValueError, match="the video is empty"):
            count(shown(torch.zeros(0, 49, 12)), asked)


REACHED = sorted(name for name in METHODS if not METHODS[name].needs_question)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("total", [1, 17, 98, 392])
@pytest.mark.parametrize("name", REACHED)
def test_exactly_so_many_tokens_are_kept_even_of_features_that_are_not_finite(name, total, broken):
    features = moving(8, 49, 0.3)
    if broken:
        features[2, 5:9] = torch.nan
        features[4, 7, 1] = torch.inf
    kept = keep(features, total, exact(0.5, method=name)).keep
    assert int(kept.sum()) == total
    if broken and total < 380:
        assert not kept[2, 5:9].any() and not kept[4, 7]


@pytest.mark.parametrize("name", REACHED)
def test_every_method_chooses_as_in_the_library(name):
    features, options = moving(8, 49, 0.3), exact(method=name, min_tokens_per_frame=2)
    refuse_inexact(options)
    total = count(shown(features), options)
    assert torch.equal(
        keep(features, total, options).keep, options.config.first.select(features, options.config.budget).keep
    )


@pytest.mark.parametrize("rule", ["changed", "kept", "kept:share=0.1"])
def test_what_is_encoded_is_the_librarys_choice_of_the_same_places(rule):
    patches = moving(8, 64, 0.1)
    options = exact(encode=rule)
    assert encoded(shown(patches), exact(), 100) is None
    flat = shown_patches(patches.flatten(0, 1), (8, 8, 8), merge=2)
    places = encoded(flat, options, count(flat, options))
    of_tokens = Pixels(patches, (8, 8), (4, 4), together=True)
    chosen = options.config.encoding.rule.choose(of_tokens, options.config.budget)
    assert places.shape == (8, 16) and places[0].all() and 0 < places[1:].float().mean() < 1
    assert torch.equal(places.repeat_interleave(4, dim=1), chosen)
    frames = torch.rand(1, 3, 20, 20).repeat(6, 1, 1, 1)
    frames[3:, :, 8:12, 4:8] += 1.0
    places = encoded(shown_pictures(frames, patch=4, stride=2), options, 13)
    assert places.shape == (6, 25)
    assert places[1:].nonzero().tolist() == [[2, 11]]


def test_fewer_places_are_encoded_where_the_pixels_ask_for_fewer_tokens():
    video = shown_patches(moving(8, 64, 0.4).flatten(0, 1), (8, 8, 8), merge=2)
    options = pixels(0.9, encode="kept:limit=1")
    few, many = (encoded(video, options, total).sum() for total in (12, 100))
    assert few < many


def test_a_method_that_misses_the_count_is_refused():
    @dataclass(frozen=True)
    class Three(Method):
        name, summary, adaptive = "three", "three tokens", True

        def score(self, features):
            return Scores(features[..., 0], None)

        def choose(self, features, budget, present):
            return Selection(torch.arange(36).view(4, 9) < 3, self.score(features))

    with pytest.raises(ValueError, match="method 'three' kept 3 of 36 where 13 were asked for"):
        refuse_inexact(exact(method=Three()))


def test_looks_are_the_pixels_under_each_token():
    frames = torch.arange(2 * 3 * 24 * 24, dtype=torch.float32).view(2, 3, 24, 24)
    pictures = shown_pictures(frames, patch=4, stride=2)  # 6 patches, 3 tokens a side
    looks = pictures.looks()
    assert (pictures.frames, pictures.tokens) == (2, 9)
    assert looks.shape == (2, 9, 3 * 8 * 8)
    assert torch.equal(looks[1, 4].view(3, 8, 8), frames[1, :, 8:16, 8:16])
    assert shown_pictures(frames[..., :20, :20], patch=4, stride=2).looks().shape == (2, 9, 3 * 8 * 8)  # 5 patches
    patches = torch.arange(2 * 4 * 6 * 5).view(-1, 5)
    merged = shown_patches(patches.float(), (2, 4, 6), merge=2).looks()
    assert merged.shape == (2, 6, 20)
    assert torch.equal(merged[1, 0], patches[24:28].flatten().float())
    # bytes, which vLLM may leave to the device to normalise, are on the scale of normalised pixels
    raw = torch.tensor([[0], [255]], dtype=torch.uint8)
    assert shown_patches(raw, (2, 1, 1), 1).looks().flatten().tolist() == [-1, 1]


# ---------------------------------------------------------------------------------------------------- positions


@st.composite
def prompts(draw):
    """(ids, rows of media in the prompt, media, positions that must come out)."""
    ids, media, embeddings, expected, upcoming = [], [], [], [], 0
    for kind in draw(st.lists(st.sampled_from(["text", "image", "video", "framed"]), min_size=1, max_size=5)):
        if kind == "text" or (kind == "framed" and ids[-1:] == [VIDEO]):
            length = draw(st.integers(1, 6))
            ids += [TEXT] * length
            expected.append(torch.arange(upcoming, upcoming + length).expand(3, -1))
            upcoming += length
            continue
        length = draw(st.integers(2, 400 if kind == "video" else 12)) + LEAD
        spread = draw(st.integers(1, 300))
        relative = torch.stack([torch.arange(length) * spread, torch.arange(length) % 5, torch.arange(length) % 7])
        relative[:, -1] = relative.max() + 1  # a newline, or the end of a frame
        kept = torch.ones(length, dtype=torch.bool)
        if kind != "image":
            kept = torch.tensor(draw(st.lists(st.booleans(), min_size=length, max_size=length)))
            kept[:LEAD] = kept[-2:] = True
        lead = LEAD if kind == "framed" else 0
        rows = int(kept.sum())
        media.append(Medium(len(ids), rows, relative))
        token = IMAGE if kind == "image" else VIDEO
        ids += [TEXT] * lead + [token] * (rows - lead)
        plain = torch.randn(rows, 4).bfloat16()
        here = relative[:, kept]
        embeddings.append(without_positions(plain) if kind == "image" else with_positions(plain, here, lead))
        expected.append(here + upcoming)
        upcoming += int(relative.max()) + 1
    return ids, embeddings, media, torch.cat(expected, dim=1)


@given(prompts(), st.data())
def test_every_chunk_gives_its_rows_the_positions_of_the_full_prompt(made, data):
    """Whatever came before it: chunks in order, from a cached prefix on, or again."""
    ids, embeddings, media, expected = made
    positions, delta = full_positions(len(ids), media)
    assert delta == int(expected.max()) + 1 - len(ids)
    start = data.draw(st.integers(0, len(ids) - 1))  # tokens before it come from a prefix cache
    cuts = sorted({start, len(ids), *data.draw(st.lists(st.integers(start, len(ids)), max_size=4))})
    for begin, end in [*pairwise(cuts), (start, len(ids))]:
        rows = [
            each[max(begin - medium.offset, 0) : end - medium.offset]
            for each, medium in zip(embeddings, media, strict=True)
            if begin < medium.offset + medium.length and end > medium.offset
        ]
        plain, positions, after = place(rows, ids, VIDEO, positions, begin)
        assert torch.equal(positions[:, begin:end], expected[:, begin:end])
        assert all(each.shape[1] == 4 for each in plain)
        assert after == delta or end < len(ids)


def test_a_prompt_with_the_models_own_markers_in_its_text_ends_nothing():
    rows = with_positions(torch.zeros(4, 2), torch.arange(4).expand(3, -1))
    for ids in ([TEXT] * 8, [VIDEO] * 2 + [TEXT] * 6, [TEXT] * 7 + [VIDEO]):
        _, positions, _ = place([rows], ids, VIDEO, torch.zeros(3, 8, dtype=torch.long), 0)
        assert positions.shape == (3, 8)
