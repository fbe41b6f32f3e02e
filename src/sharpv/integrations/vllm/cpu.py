"""vLLM's CPU worker, for a model that prunes."""

from __future__ import annotations

import functools
from typing import Any

from vllm.model_executor.models.interfaces import supports_multimodal_pruning
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker

from .model import PrunedModel


class Worker(CPUWorker):
    """Mends two things of its runner, which prunes at all, and encodes videos together.

    * vLLM's ``load_model`` does not set the flag that has positions recomputed (docs/upstream/cpu-pruning-flag.md).
    * With the flag set, videos are encoded one by one, since the scheduler counts what is left of a video. Our models
      divide a batch by what is encoded (:func:`.model.groups`), so they get it whole.
    """

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        runner = self.model_runner
        if not isinstance(runner, CPUModelRunner):
            return  # the second runner does not have these
        config = self.model_config.multimodal_config
        runner.is_multimodal_pruning_enabled = (
            supports_multimodal_pruning(runner.get_model())
            and config is not None
            and config.is_multimodal_pruning_enabled()
        )
        if isinstance(runner.get_model(), PrunedModel):
            runner._execute_mm_encoder = functools.partial(_together, runner, runner._execute_mm_encoder)


def _together(runner: Any, encode: Any, *args: Any, **kwargs: Any) -> Any:
    runner.is_multimodal_pruning_enabled = False
    try:
        return encode(*args, **kwargs)
    finally:
        runner.is_multimodal_pruning_enabled = True
