"""Every pixel that is passed is read, and every placeholder is filled: what is neither is refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache

import sharpv
import tiny
from reference import on
from tiny import Clip

ONE: list[list[tiny.Part]] = [[10, Clip(1), 11, 12, 13]]
BESIDE: list[list[tiny.Part]] = [[10, Clip(5, image=True), 11, Clip(1), 12]]
OWN_PLACEHOLDER = [name for name, family in tiny.FAMILIES.items() if family.placeholder == tiny.VIDEO]
"""Families whose videos do not share the placeholder of their images."""


def inputs_of(family: str, prompts: list[list[tiny.Part]] = ONE) -> dict[str, Any]:
    return tiny.FAMILIES[family].inputs(prompts)


def refused_at_every_door(model: Any, inputs: dict[str, Any], message: str) -> None:
    with sharpv.apply(model):
        for call in (model, model.generate):
            with pytest.raises(ValueError, match=message):
                call(**inputs)
    with pytest.raises(ValueError, match=message):
        sharpv.trim(model, inputs)


def legacy(inputs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """With stills under the name that Video-LLaVA's own processor gives them."""
    named = {("pixel_values_images" if name == "pixel_values" else name): value for name, value in inputs.items()}
    return {**named, **changes}


def test_video_llava_reads_stills_under_both_names():
    model, inputs = tiny.build("video_llava"), inputs_of("video_llava", BESIDE)
    black = torch.zeros_like(inputs["pixel_values"])
    with sharpv.apply(model, retention=0.5), torch.no_grad():
        usual, named, without, both = (
            model(**given).logits
            for given in (
                inputs,
                legacy(inputs),
                legacy(inputs, pixel_values_images=black),
                {**inputs, "pixel_values_images": black},  # the usual name wins, as in transformers
            )
        )
        said = [model.generate(**given, max_new_tokens=3, do_sample=False) for given in (inputs, legacy(inputs))]
    assert torch.equal(usual, named) and torch.equal(usual, both) and torch.equal(*said)
    assert not torch.allclose(usual, without)
    assert sharpv.trim(model, legacy(inputs))["mm_encoder_outputs"].keys() == {"image", "video"}


def test_pixels_that_nothing_reads_are_refused(model, family):
    inputs = {**inputs_of(family), "pixel_values_depth": torch.zeros(1)}
    message = "reads no input 'pixel_values_depth'; it reads pixel_"
    refused_at_every_door(model, inputs, message)


@pytest.mark.parametrize("family", ["internvl", "smolvlm"])
@pytest.mark.parametrize("beside", [False, True])
def test_videos_for_families_that_take_frames_as_images_are_refused(model, family, beside):
    inputs = inputs_of(family)
    inputs["pixel_values_videos"] = inputs["pixel_values"] if beside else inputs.pop("pixel_values")
    message = "reads no input 'pixel_values_videos': it takes frames as pixel_values, and how many .* video_frames"
    refused_at_every_door(model, inputs, message)


@pytest.mark.parametrize("family", OWN_PLACEHOLDER)
def test_placeholders_of_stills_without_stills_are_refused(model, family):
    pixels = ("pixel_values", "image_sizes", "image_grid_thw", "image_merge_sizes")
    inputs = {name: value for name, value in inputs_of(family, BESIDE).items() if name not in pixels}
    count = int((inputs["input_ids"] == tiny.IMAGE).sum())
    with sharpv.apply(model), pytest.raises(ValueError, match=f"has {count} image placeholder tokens, but no pictures"):
        model.generate(**inputs, max_new_tokens=1)


def test_a_later_turn_takes_the_stills_it_has_seen():
    model, inputs = tiny.build("video_llava"), inputs_of("video_llava", BESIDE)
    turns = []
    with sharpv.apply(model):
        for again in ({}, inputs, legacy(inputs)):
            cache = DynamicCache(config=model.config)
            ids = model.generate(**inputs, **on(cache), max_new_tokens=3, do_sample=False)
            ids = torch.cat([ids, torch.tensor([[16, 17]])], dim=1)
            pixels = {name: value for name, value in again.items() if "pixel" in name}
            turns.append(model.generate(input_ids=ids, **pixels, **on(cache), max_new_tokens=3, do_sample=False))
        assert torch.equal(turns[0], turns[1]) and torch.equal(turns[0], turns[2])
        with pytest.raises(ValueError, match="reads no input 'pixel_values_depth'"):
            model.generate(input_ids=ids, pixel_values_depth=ids, **on(cache), max_new_tokens=3)
        with pytest.raises(ValueError, match="was passed together with a cache"):
            model(input_ids=ids[:, -1:], pixel_values_images=inputs["pixel_values"], **on(cache))


@pytest.mark.parametrize("family", OWN_PLACEHOLDER)
def test_a_still_that_a_later_turn_brings_without_a_place_is_refused(model, family):
    inputs = inputs_of(family)
    still = inputs_of(family, BESIDE)
    with sharpv.apply(model):
        cache = DynamicCache(config=model.config)
        ids = model.generate(**inputs, **on(cache), max_new_tokens=2, do_sample=False)
        with pytest.raises(ValueError, match="a new image or video in a later turn"):
            model.generate(
                input_ids=torch.cat([ids, torch.tensor([[16]])], dim=1),
                pixel_values=still["pixel_values"],
                **on(cache),
                max_new_tokens=2,
            )
