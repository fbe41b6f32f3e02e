"""Shared fixtures: one CPU thread, no network, tiny models built once per worker."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from transformers import PreTrainedModel

import tiny

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)
settings.register_profile("fixed", derandomize=True)  # the same examples on every machine
settings.load_profile("fixed")


@pytest.fixture(params=list(tiny.FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["sdpa", "eager"])
def attention(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(family: str) -> Iterator[PreTrainedModel]:
    """A tiny model of each family, with the attention that users get."""
    model = tiny.build(family)
    yield model
    assert not {"generate", "forward"} & vars(model).keys(), "a test left its model patched"
