"""Methods that merge: what the language model reads, by family."""

from __future__ import annotations

import pytest
import torch

import sharpv
import tiny
from reference import cache_of, pruned_prompt
from sharpv.methods import FastVID, Pool
from sharpv.models import find_family
from tiny import Clip

PROMPTS: list[list[tiny.Part]] = [[10, 11, Clip(1), 12], [10, Clip(2), 15]]
RETENTION = 0.5

pytestmark = pytest.mark.filterwarnings("ignore:.*requires_grad.*")


def read(model, inputs, method):
    """The pruned videos of one pass, and its logits."""
    with sharpv.apply(model, method, retention=RETENTION, memory=None):
        out = model(**inputs, use_cache=True)
    return pruned_prompt(cache_of(out)).videos, out.logits


@torch.no_grad()
@pytest.mark.parametrize("method", [FastVID(segments=1, similarity=-1.0), Pool()], ids=["fastvid", "pool"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_survivors_carry_others_where_positions_allow_it(model, family, method, everywhere):
    inputs, method = tiny.FAMILIES[family].inputs(PROMPTS), type(method)(**{**vars(method), "everywhere": everywhere})
    own = find_family(model)
    rows = torch.cat(list(own.encode(model, own.modality, inputs).pooler_output)).flatten(0, -2).chunk(len(PROMPTS))
    videos, logits = read(model, inputs, method)
    merges = everywhere or own.positions == "1d"
    for video, features in zip(videos, rows):
        patches = video.layout.split(features)
        present = video.layout.present and video.layout.present.mask
        selection = method.select(patches, sharpv.Budget(RETENTION), present)
        assert torch.equal(video.keep, selection.keep)
        expected = selection.features if merges else patches
        assert torch.equal(video.features, expected[video.keep])
        assert not torch.equal(selection.features[video.keep], patches[video.keep])
    again, same = read(model, inputs, method)
    assert torch.equal(logits, same) and torch.equal(again[0].features, videos[0].features)
