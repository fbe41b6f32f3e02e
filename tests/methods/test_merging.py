"""Methods that merge: what the language model reads, by family."""

from __future__ import annotations

import pytest
import torch

import sharpv
import tiny
from reference import survivors
from sharpv.methods import FastVID, Pool
from sharpv.models import find_family
from tiny import Clip

PROMPTS: list[list[tiny.Part]] = [[10, 11, Clip(1), 12], [10, Clip(2), 15]]
RETENTION = 0.5

pytestmark = pytest.mark.filterwarnings("ignore:.*requires_grad.*")


@torch.no_grad()
@pytest.mark.parametrize("method", [FastVID(segments=1, similarity=-1.0), Pool()], ids=["fastvid", "pool"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_survivors_carry_others_where_positions_allow_it(model, family, method, everywhere):
    inputs, method = tiny.FAMILIES[family].inputs(PROMPTS), type(method)(**{**vars(method), "everywhere": everywhere})
    own = find_family(model)
    rows = torch.cat(list(own.encode(model, own.modality, inputs).pooler_output)).flatten(0, -2).chunk(len(PROMPTS))
    config = sharpv.Config(method, retention=RETENTION)
    merges = everywhere or own.positions == "1d"
    read = survivors(model, inputs, config)
    for (video, carried), features in zip(read, rows):
        patches = video.layout.split(features)
        present = video.layout.present and video.layout.present.mask
        selection = method.select(patches, sharpv.Budget(RETENTION), present)
        assert torch.equal(video.keep, selection.keep)
        expected = selection.features if merges else patches
        assert torch.equal(carried, expected[video.keep])
        assert not torch.equal(selection.features[video.keep], patches[video.keep])
    again = survivors(model, inputs, config)
    assert torch.equal(again[0][1], read[0][1])
