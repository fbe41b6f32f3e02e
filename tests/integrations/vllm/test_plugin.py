"""How the plugin enters vLLM, and where it stays out."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import vllm.version
from small import NAMES, STOCK
from vllm import ModelRegistry
from vllm.config.multimodal import MultiModalConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader.utils import get_model_cls
from vllm.model_executor.models.config import MODELS_CONFIG_MAP
from vllm.plugins import load_general_plugins
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from sharpv import Config, versions
from sharpv.integrations.vllm import MODELS, register
from sharpv.integrations.vllm.engine import CPU_WORKER, STOCK_WORKERS, ours, swap_in
from sharpv.integrations.vllm.options import Options

ONEVISION = "LlavaOnevisionForConditionalGeneration"


@pytest.fixture(autouse=True)
def _loaded(monkeypatch):
    load_general_plugins()
    for name in (*MODELS, *map(ours, MODELS)):
        monkeypatch.setitem(MODELS_CONFIG_MAP, name, MODELS_CONFIG_MAP[name])


def configured(folder: Any, **options: Any) -> Any:
    """A whole configuration, as an engine starts from it."""
    args = EngineArgs(model=str(folder), dtype="float32", enforce_eager=True, max_model_len=512, **options)
    return args.create_engine_config()


@pytest.mark.parametrize("name", NAMES)
def test_without_the_option_all_is_vllms_own(name, checkpoint):
    for options in ({}, {"video_pruning_rate": 0.5}):  # the second is vLLM's own pruning
        config = configured(checkpoint(STOCK.get(name, name)), **options)
        model = get_model_cls(config.model_config)
        assert config.model_config.architecture == model.__name__
        assert config.model_config.architectures == config.model_config.hf_config.architectures == [model.__name__]
        assert model.__module__ == ModelRegistry.models[model.__name__].module_name
        assert model.__module__ == f"vllm.model_executor.models.{name}"
        assert config.parallel_config.worker_cls == STOCK_WORKERS[1]
    assert CPUModelRunner.load_model.__module__ == CPUModelRunner.__module__
    assert CPUModelRunner._execute_mm_encoder is GPUModelRunner._execute_mm_encoder


@pytest.mark.parametrize("architecture", MODELS)
def test_vllms_checks_answer_as_before_for_models_without_the_option(architecture):
    model = SimpleNamespace(
        hf_config=SimpleNamespace(architectures=[architecture]),
        multimodal_config=SimpleNamespace(video_pruning_method="evs", video_pruning_rate=0.5),
        architecture=architecture,
    )
    config = SimpleNamespace(model_config=model, speculative_config=object(), parallel_config=None)
    before = repr(config)
    MODELS_CONFIG_MAP[architecture].verify_and_update_model_config(model)
    MODELS_CONFIG_MAP[architecture].verify_and_update_config(config)
    assert repr(config) == before


@pytest.mark.parametrize("name", NAMES)
def test_the_flag_and_the_overrides_swap_in_the_same(name, checkpoint, tmp_path):
    file = tmp_path / "mine.json"
    Config(retention=0.5).save(file)
    for options in (
        {"video_pruning_method": "sharpv"},
        {"hf_overrides": {"sharpv": {}}},
        {"video_pruning_method": "sharpv", "hf_overrides": {"sharpv": {"method": "sharpv"}}},
        {"hf_overrides": {"sharpv": {"config": str(file)}}},
    ):
        config = configured(checkpoint(name), video_pruning_rate=0.5, **options)
        model = get_model_cls(config.model_config)
        assert model.__module__ == f"sharpv.integrations.vllm.{name}"
        assert config.model_config.architectures == [config.model_config.architecture]
        assert config.model_config.architecture in map(ours, MODELS)
        assert config.parallel_config.worker_cls == CPU_WORKER
        assert Options.of(config.model_config) == Options(Config(retention=0.5))
    file.unlink()
    assert Options.of(config.model_config) == Options(Config(retention=0.5))  # workers need no file


def test_the_method_is_one_of_vllms_and_registering_again_changes_nothing():
    before, create = dict(MODELS_CONFIG_MAP), EngineArgs.create_model_config
    register()
    assert before == MODELS_CONFIG_MAP
    assert EngineArgs.create_model_config is create
    assert MultiModalConfig(video_pruning_method="sharpv", video_pruning_rate=0.5).get_video_pruning_spec()
    with pytest.raises(ValueError, match="'evs', 'vidcom2' or 'sharpv'"):
        MultiModalConfig(video_pruning_method="sharp", video_pruning_rate=0.5)


def test_an_architecture_that_is_not_ours_is_refused():
    with pytest.raises(ValueError, match="sharpv in vLLM prunes Llava.*, got LlamaForCausalLM"):
        swap_in(SimpleNamespace(architecture="LlamaForCausalLM"), MODELS)


def test_another_method_beside_our_options_is_refused(checkpoint):
    with pytest.raises(ValueError, match="--video-pruning-method vidcom2 and sharpv's options ask for two things"):
        configured(
            checkpoint("qwen3_vl"), video_pruning_rate=0.5, video_pruning_method="vidcom2", hf_overrides={"sharpv": {}}
        )


def test_a_worker_of_another_is_refused(checkpoint):
    with pytest.raises(ValueError, match="needs a --worker-cls of its own: leave out 'mine.Worker'"):
        configured(
            checkpoint("qwen3_vl"), worker_cls="mine.Worker", video_pruning_method="sharpv", video_pruning_rate=0.5
        )


def test_a_newer_vllm_is_spoken_of_once_and_only_where_sharpv_prunes(monkeypatch, caplog, checkpoint):
    monkeypatch.setattr(vllm.version, "__version__", "0.33.1")
    monkeypatch.setattr(versions, "_said", set())
    with caplog.at_level(logging.WARNING, logger="sharpv"):
        configured(checkpoint("qwen3_vl"))
        assert not caplog.records
        for _ in range(2):
            configured(checkpoint("qwen3_vl"), video_pruning_method="sharpv", video_pruning_rate=0.5)
    assert [each.getMessage() for each in caplog.records] == [
        "sharpv was tested with vllm up to 0.32, this is 0.33.1: compare its answers before you trust it"
    ]


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
        MODELS_CONFIG_MAP[ours(ONEVISION)].verify_and_update_config(config)
