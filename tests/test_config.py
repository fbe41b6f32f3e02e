"""The one configuration: checked, printed, saved and loaded; and every door builds it."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sharpv
import tiny
from sharpv import PAPER, Config, KeepLayers, SharpV
from sharpv.kvcache import STAGES
from sharpv.methods import METHODS, Random
from tiny import Clip
from variants import CONFIGS

SECONDS = [
    None,
    0.2,
    "layers:0+23",
    "contribution:relative=0.5",
    "contribution:kv_budget=0.25,rows=2",
    "fastv",
    "vtw:14",
]
EVERY = [*CONFIGS, PAPER, *(Config(memory=memory, encode="changed:limit=0.4", frames_at_once=4) for memory in SECONDS)]


@pytest.mark.parametrize("config", EVERY, ids=str)
def test_what_is_saved_comes_back(config, tmp_path):
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    config.save(tmp_path / "mine.json")
    assert Config.load(tmp_path / "mine.json") == config and hash(config) == hash(Config.load(tmp_path / "mine.json"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]
    assert json.loads((tmp_path / "mine.json").read_text())["sharpv"] == sharpv.__version__
    assert "\n" not in str(config)


@pytest.mark.parametrize("registry", [METHODS, STAGES], ids=["methods", "stages"])
def test_every_entry_is_spelled_and_read_back(registry):
    for config in EVERY:
        entry = config.first if registry is METHODS else config.second
        if entry is not None and "counts_of" not in vars(entry):  # a method in a method is for dicts
            assert registry.make(registry.spell(entry), "it") == entry
        if entry is not None:
            assert registry.from_dict(registry.to_dict(entry), "it") == entry


@given(st.floats(0.01, 1), st.integers(1, 10**6), st.integers(0, 9), st.floats(0, 9), st.sampled_from(SECONDS))
def test_numbers_survive_to_the_bit(retention, most, least, weight, memory):
    config = Config(SharpV(weight=weight), retention, most, least, memory)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert METHODS.make(METHODS.spell(config.first), "method") == config.first


def test_it_prints_as_what_was_asked_for():
    assert str(Config()) == "sharpv" and str(PAPER) == "sharpv memory=cosine positions=packed"
    assert str(Config("sharpv:weight=0.5", retention=0.25)) == "sharpv:weight=0.5 retention=0.25"
    assert str(Config(memory=KeepLayers((3, 1)))) == "sharpv memory=layers:keep=1+3"
    assert Config("sharpv:0.5") == Config(SharpV(weight=0.5)) == Config(SharpV(0.5))


def test_a_configuration_and_its_fields_are_the_same_at_the_door():
    model, inputs = tiny.build("llava_onevision"), tiny.FAMILIES["llava_onevision"].inputs([[10, Clip(1), 12]])
    reports = []
    for asked in (("sharpv",), (SharpV(),), (Config(),), (PAPER,)):
        with sharpv.apply(model, *asked, retention=0.25, positions="original", memory=None) as pruning:
            model(**inputs)
            reports.append(pruning.report)
        assert pruning.config == Config(retention=0.25)
    assert reports.count(reports[0]) == len(reports)
    trimmed = sharpv.trim(model, inputs, Config(retention=0.25))
    assert trimmed["input_ids"].equal(sharpv.trim(model, inputs, retention=0.25)["input_ids"])


def test_the_default_prunes_before_the_language_model_and_nothing_else():
    assert Config().second is None and PAPER.second is not None
    assert Config.of(PAPER, memory="off").second is None


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        ({"method": "sharp"}, ValueError, "unknown method 'sharp', did you mean 'sharpv'? known: cdpruner"),
        ({"method": "SharpV"}, ValueError, "did you mean 'sharpv'?"),
        ({"method": SharpV}, TypeError, "method must be a name or an instance of a method, got the class SharpV"),
        (
            {"method": "sharpv:wait=1"},
            ValueError,
            "method 'sharpv' has no parameter 'wait'; it has weight, mode, threshold",
        ),
        ({"method": "uniform:1", "retention": 0.5}, ValueError, "method 'uniform' has no parameter '1'; it has none"),
        ({"method": "uniform"}, ValueError, "keeps a fixed share: pass retention="),
        ({"method": "vtw"}, ValueError, "'vtw' acts inside the language model: pass memory='vtw'"),
        ({"memory": "lairs:3"}, ValueError, "unknown memory 'lairs', did you mean 'layers'?"),
        ({"memory": True}, TypeError, "memory must be a name or an instance of a second stage, got bool"),
        ({"memory": "fastv:retention=2"}, ValueError, "retention must lie in (0, 1], got 2"),
        (
            {"retention": "0.25"},
            TypeError,
            "retention is the kept share and must lie in (0, 1], as a plain number, got '0.25'",
        ),
        ({"retention": True}, TypeError, "got True"),
        ({"positions": "learned"}, ValueError, "positions must be 'original' or 'packed', got 'learned'"),
        ({"retain": 0.25}, TypeError, "a configuration has no field 'retain', did you mean 'retention'?"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(values, error, sentence, tmp_path):
    with pytest.raises(error, match=re.escape(sentence)):
        Config.of(values.pop("method", "sharpv"), **values) if "method" not in values else Config(**values)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not a configuration: Expecting value"),
        ("[1]", "is not a configuration: it holds list, not an object"),
        ('{"method": {"weight": 1}}', "is not a configuration: unknown method None"),
        ('{"method": {"name": "sharpv", "wait": 1}}', "method 'sharpv' has no parameter 'wait'"),
        ('{"retention": 7}', "must lie in (0, 1], got 7"),
        ('{"sharpv": "99.0", "encoder": 1}', "has no field 'encoder'"),
    ],
)
def test_a_file_that_holds_none_is_named(text, sentence, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))!s}.*{re.escape(sentence)}"):
        Config.load(path)
    with pytest.raises(FileNotFoundError):
        Config.load(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError):
        Config().save(tmp_path / "none" / "mine.json")


def test_names_that_a_file_holds_may_be_spelled():
    assert Config.from_dict({"method": "divprune:scope=video", "retention": 0.5, "memory": "layers:1"}) == Config(
        "divprune:video", retention=0.5, memory=KeepLayers((1,))
    )
    nested = Config(Random(counts_of=SharpV()))
    assert nested.to_dict()["method"]["counts_of"]["name"] == "sharpv" and Config.from_dict(nested.to_dict()) == nested


def test_every_field_has_words_for_the_command_line():
    for each in fields(Config):
        assert each.metadata["help"], each.name


def test_what_takes_a_configuration_refuses_what_it_cannot_do():
    model: Any = tiny.build("llava_onevision")
    with pytest.raises(ValueError, match="trim is the first stage alone"):
        sharpv.trim(model, {}, PAPER)
    with pytest.raises(ValueError, match="calibrate looks for the second stage itself"):
        sharpv.calibrate(model, [], PAPER)
