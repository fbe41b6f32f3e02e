"""Whole numbers out of shares: exact totals, proportion, corner cases."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpv.methods.budget import Budget, Present, keep_top, rank, share_out

demands = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40)


def there(demand, size):
    return Present.everywhere(len(demand), size)


def counts(budget, demand):
    """Of frames of ten tokens."""
    return budget.counts(torch.tensor(demand), there(demand, 10)).tolist()


def every(demand, number):
    return torch.full((len(demand),), number)


@settings(max_examples=200, deadline=None)
@given(demands, st.data())
def test_share_out_is_exact_and_within_bounds(demand, data):
    cap = torch.tensor([data.draw(st.integers(0, 50)) for _ in demand])
    floor = torch.tensor([data.draw(st.integers(0, most)) for most in cap.tolist()])
    total = data.draw(st.integers(int(floor.sum()), int(cap.sum())))
    counts = share_out(torch.tensor(demand), total, floor, cap)
    assert counts.sum() == total
    assert (counts >= floor).all() and (counts <= cap).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=1), st.integers(1, 50), st.data())
def test_share_out_never_gives_less_to_a_frame_that_asks_for_more(demand, cap, data):
    total = data.draw(st.integers(1, cap * len(demand)))
    counts = share_out(torch.tensor(demand), total, every(demand, 0), every(demand, cap)).tolist()
    for (asked, got), (asked_less, got_less) in zip(
        sorted(zip(demand, counts), reverse=True), sorted(zip(demand, counts), reverse=True)[1:]
    ):
        assert got >= got_less or asked == asked_less


def test_share_out_by_hand():
    def shares(demand, total, floor=0, cap=10):
        return share_out(torch.tensor(demand), total, every(demand, floor), every(demand, cap)).tolist()

    assert shares([0.1, 0.2, 0.3, 0.4], 10) == [1, 2, 3, 4]
    assert shares([0.5, 0.5, 0.5], 10) == [4, 3, 3]  # largest remainder, ties to the lower index
    assert shares([0.1, 0.9], 12) == [2, 10]  # the cap binds, the rest goes on
    assert shares([0.0, 1.0, 0.0], 14) == [2, 10, 2]  # still frames share what is left
    assert shares([0.0, 0.0], 5) == [3, 2]  # nobody asks: evenly
    assert shares([0.0, 1.0], 8, floor=3) == [3, 5]


def test_adaptive_counts_round_to_nearest_and_keep_at_least_one():
    budget = Budget()
    assert counts(budget, [0.5, 0.0, 0.24, 0.26]) == [5, 0, 2, 3]
    assert counts(budget, [0.25]) == [3]  # halves go up
    assert counts(budget, [0.01, 0.02, 0.0]) == [0, 1, 0]
    assert counts(budget, [0.0, 0.0, 0.0]) == [1, 0, 0]


def test_floor_and_ceiling():
    demand = [0.8, 0.4, 0.0]
    assert counts(Budget(min_tokens_per_frame=2), demand) == [8, 4, 2]
    assert counts(Budget(max_tokens=6), demand) == [4, 2, 0]
    assert counts(Budget(max_tokens=100), demand) == [8, 4, 0]
    assert counts(Budget(max_tokens=8, min_tokens_per_frame=1), demand) == [5, 2, 1]
    assert counts(Budget(retention=0.5, max_tokens=9), demand) == [6, 3, 0]
    assert counts(Budget(min_tokens_per_frame=99), demand) == [10, 10, 10]


@settings(max_examples=100, deadline=None)
@given(demands, st.integers(1, 50), st.floats(0.001, 1))
def test_retention_gives_the_exact_total(demand, size, retention):
    budget = Budget(retention=retention)
    assert budget.counts(torch.tensor(demand), there(demand, size)).sum() == max(
        1, round(retention * len(demand) * size)
    )


@settings(max_examples=100, deadline=None)
@given(demands, st.integers(1, 50), st.integers(1, 400))
def test_a_ceiling_is_never_exceeded(demand, size, ceiling):
    counts = Budget(max_tokens=ceiling).counts(torch.tensor(demand), there(demand, size))
    assert 1 <= counts.sum() <= ceiling


@settings(max_examples=100, deadline=None)
@given(demands, st.integers(1, 20), st.floats(0.001, 1), st.randoms(use_true_random=False))
def test_tokens_that_are_not_there_are_not_counted(demand, size, retention, random):
    mask = torch.tensor([[random.random() < 0.5 for _ in range(size)] for _ in demand])
    mask[-1, 0] = True
    present = Present(mask, int(mask.sum()))
    counts = Budget(retention=retention).counts(torch.tensor(demand), present)
    assert counts.sum() == max(1, round(retention * present.count)) and (counts <= mask.sum(1)).all()
    adaptive = Budget(min_tokens_per_frame=1).counts(torch.tensor(demand), present)
    assert adaptive.sum() >= 1 and (adaptive <= mask.sum(1)).all() and (adaptive >= mask.any(1).long()).all()


def test_top_tokens_ties_to_the_lower_index():
    scores = torch.tensor([[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert rank(scores).tolist() == [[3, 0, 1, 2], [0, 1, 2, 3]]
    kept = keep_top(scores, torch.tensor([2, 1]))
    assert kept.tolist() == [[False, True, True, False], [True, False, False, False]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retention": 1.5}, r"retention is the kept share and must lie in \(0, 1\], got 1.5"),
        ({"retention": 0.0}, "got 0.0"),
        ({"retention": float("nan")}, "got nan"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1, got 0"),
        ({"min_tokens_per_frame": -1}, "min_tokens_per_frame must be a whole number of at least 0, got -1"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Budget(**options)


def test_a_floor_above_the_total_is_refused():
    with pytest.raises(ValueError, match="asks for 12 tokens over 3 frames, but only 3 may be kept"):
        Budget(retention=0.1, min_tokens_per_frame=4).counts(torch.ones(3), there([1, 1, 1], 10))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 3), st.floats(0.01, 1.0), st.integers(0, 10**6))
def test_best_is_exact_keeps_the_floor_and_prefers_the_higher_score(frames, size, least, retention, seed):
    scores = torch.rand(frames, size, generator=torch.Generator().manual_seed(seed))
    budget = Budget(retention=retention, min_tokens_per_frame=least)
    floor, total = min(least, size), budget.total(frames * size)
    if floor * frames > total:
        with pytest.raises(ValueError, match="asks for"):
            budget.best(scores, Present.everywhere(frames, size))
        return
    keep = budget.best(scores, Present.everywhere(frames, size))
    assert keep.sum() == total and (keep.sum(dim=1) >= floor).all()
    # what is kept beyond the floor is worth at least as much as anything dropped
    free = torch.cat([row[kept].sort(descending=True).values[floor:] for row, kept in zip(scores, keep)])
    if len(free) and not keep.all():
        assert free.min() >= scores[~keep].max()
