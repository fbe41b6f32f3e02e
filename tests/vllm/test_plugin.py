"""How the plugin enters vLLM, and where it stays out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import vllm.version
from vllm.config.multimodal import MultiModalConfig
from vllm.model_executor.models.config import MODELS_CONFIG_MAP
from vllm.plugins import load_general_plugins

from sharpv.vllm import MODELS, register

ONEVISION = "LlavaOnevisionForConditionalGeneration"


@pytest.fixture(autouse=True)
def _loaded(monkeypatch):
    load_general_plugins()
    for name in MODELS:
        monkeypatch.setitem(MODELS_CONFIG_MAP, name, MODELS_CONFIG_MAP[name])


def test_the_method_is_one_of_vllms_and_registering_again_changes_nothing():
    before = dict(MODELS_CONFIG_MAP)
    register()
    assert before == MODELS_CONFIG_MAP
    assert MultiModalConfig(video_pruning_method="sharpv", video_pruning_rate=0.5).get_video_pruning_spec()
    with pytest.raises(ValueError, match="'evs', 'vidcom2' or 'sharpv'"):
        MultiModalConfig(video_pruning_method="sharp", video_pruning_rate=0.5)


def test_an_older_vllm_refuses_our_option_and_runs_without(monkeypatch):
    monkeypatch.setattr(vllm.version, "__version_tuple__", (0, 31, 0))
    register()
    asked = SimpleNamespace(model_config=SimpleNamespace(hf_config=SimpleNamespace(sharpv={})))
    with pytest.raises(ValueError, match="sharpv needs vLLM 0.32 or newer, this is 0.31.0"):
        MODELS_CONFIG_MAP[ONEVISION].verify_and_update_config(asked)
    plain = SimpleNamespace(model_config=SimpleNamespace(hf_config=SimpleNamespace(), multimodal_config=None))
    plain.speculative_config = None
    MODELS_CONFIG_MAP[ONEVISION].verify_and_update_config(plain)


def test_speculative_decoding_is_refused():
    config = SimpleNamespace(
        model_config=SimpleNamespace(
            hf_config=SimpleNamespace(sharpv={}),
            multimodal_config=SimpleNamespace(video_pruning_method="evs", video_pruning_rate=0.5),
        ),
        speculative_config=object(),
    )
    with pytest.raises(ValueError, match="speculative decoding"):
        MODELS_CONFIG_MAP[ONEVISION].verify_and_update_config(config)
