"""A second stage is put on a model."""

from __future__ import annotations

from functools import singledispatch

from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from .base import Criterion, SecondStage, Withdrawal
from .memory import MemoryStage
from .withdrawal import WithdrawalStage


@singledispatch
def attach(stage: SecondStage, model: PreTrainedModel) -> list[RemovableHandle]:
    """Put a stage's hooks on the decoder layers; they act only on caches that :mod:`.memory` prepared.

    Raises:
        ValueError: a model that the stage was not made for.
        TypeError: neither a criterion nor a withdrawal.
    """
    raise TypeError(f"a second stage is a Criterion or a Withdrawal, got {type(stage).__name__}")


@attach.register
def _(stage: Criterion, model: PreTrainedModel) -> list[RemovableHandle]:
    return MemoryStage(stage).attach(model.get_decoder().layers)


@attach.register
def _(stage: Withdrawal, model: PreTrainedModel) -> list[RemovableHandle]:
    return WithdrawalStage(stage).attach(model)
