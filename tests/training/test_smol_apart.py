"""Deltas set apart from text: the closed form against its own objective."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sharpv_smol.model import LoRA
from training.smol.apart import second_moments, set_apart


def learned(inner: int = 12, outer: int = 7, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(LoRA(nn.Linear(inner, outer)))
    nn.init.normal_(model[0].b)
    return model


def moments(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    with second_moments(model) as seen:
        model(x)
    return seen


def added(delta: LoRA, x: Tensor) -> Tensor:
    return delta(x) - delta.linear(x)


def test_moments_are_the_mean_over_all_positions_and_calls():
    model = learned()
    first, second = torch.randn(2, 5, 12), torch.randn(1, 3, 12)
    with second_moments(model) as seen:
        model(first)
        model(second)
    every = torch.cat([first.flatten(0, 1), second.flatten(0, 1)])
    assert torch.allclose(seen["0"], every.T @ every / 13, atol=1e-5)
    model(first)  # nothing watches any more
    assert torch.allclose(seen["0"], every.T @ every / 13, atol=1e-5) and not model[0]._forward_pre_hooks


def test_what_is_only_in_videos_stays_and_what_is_only_in_text_goes():
    model = learned()
    video, text = torch.randn(400, 12), torch.randn(400, 12)
    video[:, 6:] = 0
    text[:, :6] = 0
    before, there = added(model[0], video).detach(), added(model[0], text).detach()
    set_apart(model, moments(model, video), moments(model, text), weight=1.0)
    assert torch.allclose(added(model[0], video), before, atol=1e-2)
    assert added(model[0], text).norm() < 1e-3 * there.norm()


def test_without_weight_nothing_changes():
    model = learned()
    a = model[0].a.detach().clone()
    set_apart(model, moments(model, torch.randn(400, 12)), moments(model, torch.randn(400, 12)), weight=0.0)
    assert torch.allclose(model[0].a, a, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), weight=st.floats(0.05, 20))
def test_no_other_deltas_do_better(seed, weight):
    model = learned(seed=seed)
    delta = model[0]
    # inputs of different scale in different directions, as a language model's are
    video, text = (torch.randn(200, 12) @ torch.randn(12, 12) for _ in range(2))
    before = added(delta, video).detach()

    @torch.no_grad()
    def cost() -> float:
        changed = (added(delta, video) - before).square().sum(-1).mean()
        return float(changed + weight * added(delta, text).square().sum(-1).mean())

    set_apart(model, moments(model, video), moments(model, text), weight)
    best, a = cost(), delta.a.detach().clone()
    for _ in range(5):
        with torch.no_grad():
            delta.a.copy_(a + 0.1 * torch.randn_like(a))
        assert cost() > best


def test_moments_are_not_left_watching_after_an_error():
    model = learned()
    with pytest.raises(RuntimeError), second_moments(model):
        model(torch.randn(3, 5))
    assert not model[0]._forward_pre_hooks
