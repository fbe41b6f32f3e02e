"""A version newer than the newest tested is worth a word, once."""

from __future__ import annotations

import warnings

import pytest
import transformers

import sharpv
import tiny
from sharpv import versions


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(versions, "_said", set())


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("0.31.2", False),
        ("0.32.0+cpu", False),
        ("0.32.7", False),
        ("0.33.0rc1", True),
        ("0.33.0.dev4+g12", True),
        ("1.0", True),
    ],
)
def test_only_newer_minor_versions_are_spoken_of(version, said):
    heard: list[str] = []
    versions.warn_if_untested("vllm", version, heard.append)
    versions.warn_if_untested("vllm", version, heard.append)
    assert len(heard) == said
    assert all(f"tested with vllm up to 0.32, this is {version}" in each for each in heard)


def test_a_newer_transformers_is_spoken_of_once_where_apply_is_called(monkeypatch):
    monkeypatch.setattr(transformers, "__version__", "5.99.0")
    model = tiny.make("llava_onevision")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for _ in range(2):
            sharpv.apply(model).remove()
    (warning,) = heard
    assert warning.category is UserWarning
    assert "tested with transformers up to 5.24, this is 5.99.0" in str(warning.message)
    assert warning.filename == __file__
