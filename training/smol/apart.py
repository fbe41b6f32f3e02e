"""Deltas set apart from text: kept for what a video brings, taken from what is there without one.

A delta adds B A x to every input x of its map, though only conversations with a video need it. Least squares finds the
A' that changes least of what is added where there is a video, and adds least where there is none:

    min over A' of  E_video |B (A' - A) x|^2 + weight * E_text |B A' x|^2   is at   A' = A V (V + weight T)^-1

with V and T the second moments E[x x^T] of the map's inputs in the two; B cancels out. It is the closed form with which
facts are written into language models without disturbing others (MEMIT, https://arxiv.org/abs/2210.07229), turned
round: here what was there before is the other fact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sharpv_smol.model import loras

RIDGE = 1e-4
"""Of the mean eigenvalue, added to each: some directions are in neither."""


@contextmanager
def second_moments(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """What the inputs of the maps with deltas are like in what runs inside: E[x x^T], (in, in) in float32, by map.

    The means are there once the context is left. Compiled layers run as they are written, since what watches them
    would not be called.
    """
    moments: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().flatten(0, -2).float()
            if name not in moments:
                moments[name], counts[name] = x.new_zeros(x.shape[1], x.shape[1]), 0
            moments[name].addmm_(x.T, x)
            counts[name] += len(x)

        return see

    hooks = [part.register_forward_pre_hook(watch(name)) for name, part in loras(model).items()]
    try:
        with torch.compiler.set_stance("force_eager"):
            yield moments
    finally:
        for hook in hooks:
            hook.remove()
    for name in moments:
        moments[name] /= counts[name]


@torch.no_grad()
def set_apart(model: nn.Module, video: dict[str, Tensor], text: dict[str, Tensor], weight: float) -> None:
    """Replace every A by A V (V + weight T)^-1, given the second moments with a video and without one."""
    for name, delta in loras(model).items():
        seen, both = video[name], video[name] + weight * text[name]
        ridge = RIDGE * both.diagonal().mean() * torch.eye(len(both), device=both.device)
        delta.a.copy_(torch.linalg.solve(both + ridge, seen @ delta.a.T).T)
