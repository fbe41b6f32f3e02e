"""Training is a function of its settings, whether it is interrupted or not."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from sharpv.pocket.model import PocketSize
from training.pocket.stages import Settings, learning_rate
from training.pocket.text_stage import keep_mask
from training.pocket.train import Run

TINY = PocketSize(32, 2, 2, 32, 32, 2, 2, 32)
SETTINGS = Settings(
    vision_steps=3, vision_batch=2, text_steps=4, text_batch=2, slots=((8, 2), (4, 2)), monitor_videos=1
)


def trained(out: Path, stops: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
    """Train to the end; after each of the given numbers of steps the process is "killed" and begun again."""
    for stop in stops:
        run = Run(out, SETTINGS, TINY)
        for _ in range(stop):
            assert run.step < run.current.steps or run.next_stage()
            run.one_step()
        run.save()
    run = Run(out, SETTINGS, TINY)
    assert run.train()
    return run.model.state_dict()


@pytest.mark.parametrize("stops", [(1,), (2, 3)])
def test_a_killed_run_continues_bit_for_bit(tmp_path: Path, stops: tuple[int, ...]) -> None:
    whole, pieces = trained(tmp_path / "whole"), trained(tmp_path / "pieces", stops)
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)
    assert (tmp_path / "whole" / "model" / "model.safetensors").exists()


def test_other_settings_do_not_continue_a_run(tmp_path: Path) -> None:
    Run(tmp_path, SETTINGS, TINY).save()
    with pytest.raises(ValueError, match="was made with"):
        Run(tmp_path, Settings(seed=1), TINY)


def test_a_time_limit_leaves_a_run_that_continues(tmp_path: Path) -> None:
    assert not Run(tmp_path, SETTINGS, TINY).train(minutes=1e-9)
    assert Run(tmp_path, SETTINGS, TINY).step == 1


def test_the_last_phase_keeps_random_subsets_only() -> None:
    rng = np.random.default_rng(0)
    is_object = np.zeros((4, 392), bool)
    is_object[:, :60] = True
    early, late = [], []
    for _ in range(200):
        for progress, shares in ((0.1, early), (0.9, late)):
            keep, positions = keep_mask(is_object, rng, progress, SETTINGS)
            counts = keep.sum(1)
            assert (counts == counts[0]).all()
            assert positions in ("original", "packed")
            shares.append(keep[:, :60].mean() - keep[:, 60:].mean())
    assert np.mean(early) > 0.7
    assert abs(np.mean(late)) < 0.03


def test_the_learning_rate_warms_up_and_decays() -> None:
    rates = [learning_rate(1.0, step, 100, 10, 0.5) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.02)
    assert max(rates) == pytest.approx(1.01)
    assert rates[-1] < 0.02
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
