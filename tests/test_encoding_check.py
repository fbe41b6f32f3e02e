"""What leaving patches out does to the features, told about a model and a clip of one's own."""

from __future__ import annotations

import pytest
import torch

import tiny
from sharpv.encoding_check import check_encoding
from sharpv.models import find_family
from tiny import Clip

PROMPT: list[list[tiny.Part]] = [[10, Clip(1, frames=6), 12], [Clip(2, frames=4), 11]]


@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl", "qwen3_vl", "smolvlm", "pllava"])
def test_it_says_how_far_features_lie_apart(family):
    model = tiny.build(family)
    inputs = tiny.FAMILIES[family].inputs(PROMPT[:1])
    found = check_encoding(model, inputs, retention=0.4, encode="kept:threshold=0")
    assert 1 / 6 < found.encoded < 1 and 0 < found.error <= found.worst and 0 < found.overlap < 1
    same = check_encoding(model, inputs, retention=0.4, encode="changed:threshold=0,limit=0")
    assert same.error < 1e-6 and same.overlap == 1 and "encoded 100.0 % of the patches" in str(same)


def test_images_count_for_nothing():
    model, family = tiny.build("internvl"), tiny.FAMILIES["internvl"]
    inputs = family.inputs([[10, Clip(3, image=True), Clip(1, frames=6), 12]])
    found = check_encoding(model, inputs, retention=0.4, encode="changed:threshold=0.8,limit=1")
    assert found.encoded < 1 and torch.isfinite(torch.tensor(found.error))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "there is nothing to check: pass encode='changed' or 'kept'"),
        ({"config": "cdpruner", "retention": 0.5, "encode": "changed"}, "'cdpruner' has to know the question"),
        ({"config": "cdpruner", "retention": 0.5, "encode": "kep"}, "unknown encode 'kep', did you mean 'kept'"),
    ],
)
def test_what_cannot_be_checked(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_encoding(tiny.build("qwen3_vl"), tiny.FAMILIES["qwen3_vl"].inputs(PROMPT[:1]), **options)


def test_other_models_and_inputs_are_refused():
    inputs = tiny.FAMILIES["perception_lm"].inputs(PROMPT[:1])
    with pytest.raises(ValueError, match="cannot leave patches out"):
        check_encoding(tiny.build("perception_lm"), inputs, encode="changed")
    model = tiny.build("qwen3_vl")
    assert find_family(model).tower is not None
    with pytest.raises(ValueError, match="hold no video"):
        check_encoding(model, tiny.FAMILIES["qwen3_vl"].inputs([[10, 11, 12]]), encode="changed")
