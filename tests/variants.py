"""Every method that is registered, and settings of some that take another way through the code: the tests' tables."""

from __future__ import annotations

from sharpv.config import Config
from sharpv.methods import METHODS, DivPrune, DyCoke, Method, Random, SharpV, SharpVPlus
from sharpv.methods.evs import EVS

SHARE = 0.3
OTHER_WAYS: list[tuple[Method, float | None]] = [
    (SharpV(mode="manual", threshold=1.0), None),
    (SharpV(), 0.25),
    (Random(counts_of=SharpV()), None),
    (EVS(anchor_frame=False), SHARE),
    (DyCoke(), SHARE),
    (DivPrune(scope="video"), SHARE),
    (SharpVPlus(), SHARE),
]
ALL = [(method(), None if method.adaptive else SHARE) for method in METHODS.values()] + OTHER_WAYS
"""Methods, and a retention where they need one."""
CONFIGS = [Config(method, retention=share) for method, share in ALL] + [
    Config(max_tokens=11, min_tokens_per_frame=1),
]
