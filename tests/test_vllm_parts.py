"""What the vLLM plugin is made of, without vLLM: options, counts, positions. With vLLM: ``tests/vllm``."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sharpv.vllm.options import Options
from sharpv.vllm.positions import Medium, full_positions, place, with_positions, without_positions
from sharpv.vllm.selection import Shown, count, keep, shown_patches, shown_pictures

VIDEO, IMAGE, TEXT, LEAD = 7, 6, 0, 3


def config(asked=None, method="evs", rate=0.75):
    multimodal = SimpleNamespace(video_pruning_method=method, video_pruning_rate=rate)
    hf = SimpleNamespace() if asked is None else SimpleNamespace(sharpv=asked)
    return SimpleNamespace(multimodal_config=multimodal, hf_config=hf)


# ------------------------------------------------------------------------------------------------------ options


def test_off_unless_the_method_or_the_overrides_say_so():
    assert Options.of(config()) is None
    assert Options.of(config(method="sharpv")) == Options(rate=0.75)
    assert Options.of(config({"mode": "adaptive", "gain": 2.0})) == Options(rate=0.75, mode="adaptive", gain=2.0)


@pytest.mark.parametrize(
    ("asked", "rate", "says"),
    [
        ({"memory": 0.2}, 0.75, "stage 2"),
        ({"gian": 2}, 0.75, "no option 'gian'"),
        ({"mode": "exact"}, 0.75, "'budget' or 'adaptive', got 'exact'"),
        ({"gain": 0}, 0.75, "above 0, got 0"),
        ({"floor": -1}, 0.75, "at least 0, got -1"),
        ({"weight": float("nan")}, 0.75, "finite number of at least 0, got nan"),
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
    return Shown(*looks.shape[:2], lambda: looks)


def moving(frames: int, tokens: int, share: float) -> torch.Tensor:
    """Pixels of a video of which this share of tokens changes from frame to frame."""
    generator = torch.Generator().manual_seed(1)
    still = torch.randn(1, tokens, 12, generator=generator).expand(frames, -1, -1).clone()
    changed = torch.rand(frames, tokens, 1, generator=generator) < share
    return torch.where(changed, torch.randn(frames, tokens, 12, generator=generator), still)


def test_a_budget_is_met_whatever_is_shown_and_the_adaptive_count_follows_the_content():
    still, busy = shown(moving(8, 49, 0.05)), shown(moving(8, 49, 0.8))
    budget, adaptive = Options(rate=0.75), Options(rate=0.25, mode="adaptive")
    assert count(still, budget) == count(busy, budget) == 98
    assert 0 < count(still, adaptive) < count(busy, adaptive) <= 294
    assert count(busy, Options(rate=0.9, mode="adaptive")) == 39  # the rate is the ceiling
    assert count(still, Options(rate=0.25, mode="adaptive", gain=3.0)) > count(still, adaptive)
    assert count(still, Options(rate=0.25, mode="adaptive", floor=5)) >= 40
    with pytest.raises(ValueError, match="min_tokens_per_frame=20"):
        count(still, Options(rate=0.75, floor=20))


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("total", [1, 17, 98, 392])
def test_exactly_so_many_tokens_are_kept_even_of_features_that_are_not_finite(total, broken):
    features = moving(8, 49, 0.3)
    if broken:
        features[2, 5:9] = torch.nan
    assert int(keep(features, total, Options(rate=0.5)).sum()) == total


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
