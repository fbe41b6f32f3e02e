"""Stand-ins for a model's own methods, on the instance: they come off exactly, in any order of wrapping."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from collections.abc import Callable
from typing import Any, NoReturn

from torch import nn


class Cover:
    """Stands in for one method of a model; copies itself with the model, so a deepcopy is pruned on its own.

    It calls ``run`` of its owner, a :class:`~sharpv.Pruning`, with the original first. Once that is removed it only
    passes on: somebody may have wrapped it in the meantime. It has a signature but no ``__wrapped__``, so nobody who
    unwraps what they had put around it unwraps it too.
    """

    def __init__(
        self, owner: Any, name: str, run: Callable[..., Any], original: Callable[..., Any], before: Any
    ) -> None:
        for attribute in functools.WRAPPER_ASSIGNMENTS:
            if hasattr(original, attribute):
                setattr(self, attribute, getattr(original, attribute))
        self.owner, self.name, self.run, self.original = owner, name, run, original
        self.before = before
        """The instance attribute that was there already (accelerate's, say), or None."""

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.original)

    @staticmethod
    def at(model: nn.Module, name: str) -> Cover | None:
        """The cover that stands in for a method of this model, also where somebody has bound it to the model again."""
        placed = vars(model).get(name)
        placed = getattr(placed, "__func__", placed)
        return placed if isinstance(placed, Cover) else None

    def take_off(self) -> None:
        """Put back what stood here before, unless somebody has put something else in its place since."""
        model = self.owner.model
        if Cover.at(model, self.name) is not self:
            return
        before = self.before
        while isinstance(before, Cover) and before.owner.finished:  # taken off while this one lay over it
            before = before.before
        if before is None:
            vars(model).pop(self.name, None)
        else:
            vars(model)[self.name] = before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], nn.Module):  # accelerate's unwrap_model binds what it finds, methods too
            if args[0] is not self.owner.model:
                raise ValueError(
                    "this model carries the pruning of the model that it was copied from: "
                    "copy a model before it is unwrapped, or call sharpv.apply on the copy"
                )
            args = args[1:]
        return self.run(self.original, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Cover:
        twin = memo[id(self)] = type(self).__new__(type(self))
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise pickle.PicklingError(
            "this model is pruned by sharpv, which cannot be stored with it: "
            "call remove() first, or store save_pretrained or the state_dict"
        )
