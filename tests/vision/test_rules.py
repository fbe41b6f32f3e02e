"""Which patches are encoded: the rules against plain loops, and what they promise."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sharpv.methods.budget import Budget
from sharpv.vision.pixels import Pixels
from sharpv.vision.rules import All, Changed, Kept

LEVELS = st.lists(st.lists(st.integers(0, 5), min_size=6, max_size=6), min_size=1, max_size=9)


def pixels_of(levels: list[list[int]], pictures: bool) -> Pixels:
    """2 x 3 patches of one level each, as pictures of 4 x 6 pixels with a border, or cut."""
    flat = torch.tensor(levels, dtype=torch.float32)
    if not pictures:
        return Pixels(flat[:, :, None].expand(-1, -1, 5), (2, 3), (2, 3))
    frames = flat.view(-1, 1, 2, 3).repeat_interleave(2, 2).repeat_interleave(2, 3)
    frames = torch.nn.functional.pad(frames, (0, 1, 0, 1), value=7.0)  # beyond the last whole patch
    return Pixels(frames.expand(-1, 3, -1, -1), (2, 3), (2, 3))


def plain(levels: list[list[int]], threshold: float, limit: float, piece: int | None) -> list[list[bool]]:
    standing, found = list(levels[0]), [[True] * 6]
    for index, frame in enumerate(levels[1:], 1):
        changed = [abs(a - b) > threshold for a, b in zip(frame, standing, strict=True)]
        if sum(changed) > limit * 6 or (piece and index % piece == 0):
            changed = [True] * 6
        standing = [a if new else b for a, b, new in zip(frame, standing, changed, strict=True)]
        found.append(changed)
    return found


@given(LEVELS, st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([None, 1, 3]), st.booleans())
def test_a_patch_is_compared_with_what_stands_at_its_place(levels, threshold, limit, piece, pictures):
    chosen = Changed(threshold, limit).choose(pixels_of(levels, pictures), Budget(), piece)
    assert chosen.tolist() == plain(levels, threshold, limit, piece)


@given(LEVELS, st.integers(0, 3), st.floats(0.05, 1), st.booleans())
def test_kept_encodes_of_what_changed_no_more_than_is_kept(levels, threshold, retention, pictures):
    pixels = pixels_of(levels, pictures)
    kept = Kept(threshold, limit=1.0).choose(pixels, Budget(retention))  # no whole frames
    assert kept[0].all()
    if len(levels) > 1:
        assert kept[1:].sum() <= max(1, round(retention * 6 * (len(levels) - 1)))
        steps = pixels.steps
        assert not (kept[1:] & (steps == 0) & (kept[:-1] | (steps == 0))).any()
    if retention == 1:
        assert kept.equal(Changed(threshold, limit=1.0).choose(pixels, Budget()))


def moving(frames: int, size: int = 64) -> Tensor:
    return torch.rand(frames, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_where_everything_moves_a_frame_is_whole_every_so_often():
    pixels = Pixels(moving(17), (8, 8), (8, 8))
    chosen = Kept(0.0).choose(pixels, Budget(0.25))
    assert [t for t, frame in enumerate(chosen) if frame.all()] == [0, 4, 8, 12, 16]
    assert chosen.float().mean() < 0.5
    assert Changed(0.0).choose(pixels, Budget()).all()


def test_a_cut_is_whole_and_a_flash_is_not():
    scenes = moving(3)
    cut = torch.stack([scenes[0]] * 3 + [scenes[1]] * 3)
    flash = torch.stack([scenes[0]] * 3 + [scenes[1]] + [scenes[2]] * 2)
    whole = [
        [t for t, frame in enumerate(Kept(0.01).choose(Pixels(clip, (8, 8), (8, 8)), Budget(0.1))) if frame.all()]
        for clip in (cut, flash)
    ]
    assert whole == [[0, 3], [0, 4]]


def test_the_last_frame_is_no_cut():
    clip = torch.stack([moving(1)[0]] * 3 + [moving(2)[1]])
    chosen = Kept(0.01).choose(Pixels(clip, (8, 8), (8, 8)), Budget(0.1))
    assert 0 < chosen[3].sum() < 64


def test_slow_drift_does_not_pass():
    levels = torch.arange(20.0).view(-1, 1, 1).expand(-1, 6, 1) / 10
    chosen = Changed(0.45, limit=1.0).choose(Pixels(levels, (2, 3), (2, 3)), Budget())
    assert chosen[:, 0].nonzero().flatten().tolist() == [0, 5, 10, 15]


def test_one_video_frame_and_all():
    pixels = Pixels(moving(1), (8, 8), (4, 4))
    for rule in (All(), Changed(), Kept()):
        assert rule.choose(pixels, Budget(0.1)).equal(torch.ones(1, 64, dtype=torch.bool))


def test_a_ceiling_is_a_share():
    pixels = Pixels(moving(9), (8, 8), (8, 8))
    by_share, by_ceiling = (Kept(0.0).choose(pixels, budget) for budget in (Budget(0.25), Budget(max_tokens=9 * 16)))
    assert by_share.equal(by_ceiling)
    assert by_share.equal(Kept(0.0, share=0.25).choose(pixels, Budget()))


def test_patches_of_a_merged_token_lie_side_by_side():
    merged = torch.arange(24.0).view(1, 24, 1)
    pixels = Pixels(merged, (4, 6), (2, 3))
    assert pixels.order.tolist()[:8] == [0, 1, 6, 7, 2, 3, 8, 9]
    token = torch.zeros(1, 6, dtype=torch.bool)
    token[0, 1] = True
    assert pixels.read_by(token)[0].nonzero().flatten().tolist() == [4, 5, 6, 7]
    torch.testing.assert_close(pixels.of_tokens(merged[..., 0])[0], torch.arange(24.0).view(6, 4).mean(1))


def test_patches_that_go_together_change_where_one_of_them_does():
    levels = torch.zeros(3, 24, 2)
    levels[1:, 5] = 1.0  # of the second token
    for rule, budget in ((Changed(0.6, limit=1.0), Budget()), (Kept(0.6, limit=1.0), Budget(0.25))):
        apart, together = (
            rule.choose(Pixels(levels, (4, 6), (2, 3), together=whole), budget) for whole in (False, True)
        )
        assert apart[1:].nonzero().tolist() == [[0, 5]]
        assert together[1:].nonzero().tolist() == [[0, 4], [0, 5], [0, 6], [0, 7]]


def test_bytes_are_weighed_before_they_are_compared():
    raw = torch.randint(0, 256, (5, 24, 6), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    scale = torch.tensor([0.01, 0.02, 0.03]).repeat_interleave(2)
    here, there = Pixels(raw, (4, 6), (2, 3), scale=scale), Pixels(raw * scale - 1, (4, 6), (2, 3))
    torch.testing.assert_close(here.steps, there.steps)
    assert here.steps.min() > 0
    rule = Changed(float(here.steps.median()) ** 0.5, limit=1.0)
    assert rule.choose(here, Budget()).equal(rule.choose(there, Budget()))


def test_bilinear_tokens_read_their_neighbours():
    pixels = Pixels(torch.zeros(1, 3, 10, 10), (5, 5), (3, 3), "bilinear")
    squares = torch.rand(2, 25, generator=torch.Generator().manual_seed(2))
    expected = torch.nn.functional.interpolate(squares.view(2, 1, 5, 5), (3, 3), mode="bilinear").flatten(1)
    torch.testing.assert_close(pixels.of_tokens(squares), expected)
    corner = torch.zeros(1, 9, dtype=torch.bool)
    corner[0, 0] = True
    assert pixels.read_by(corner)[0].nonzero().flatten().tolist() == [0, 1, 5, 6]
