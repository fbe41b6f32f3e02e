"""Variants of SharpV's rule that studies compare with it: other rankings, distances and demands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from sharpv import SharpV
from sharpv.methods import Scores, Selection
from sharpv.methods.budget import Budget, Present, keep_top
from sharpv.methods.importance import (
    dissimilarity,
    frame_retention,
    importance,
    spatial_importance,
    temporal_importance,
)

SIDE = 7
DISTANCES = {
    "1 - cos": lambda a, b: dissimilarity(a, b).square() / 2,
    "L1": lambda a, b: (a - b).abs().sum(dim=-1),
    "L2, not normalised": lambda a, b: (a - b).norm(dim=-1),
    "difference of norms": lambda a, b: (a.norm(dim=-1) - b.norm(dim=-1)).abs(),
}


@dataclass(frozen=True)
class EqualFrames(SharpV):
    """SharpV's ranking within a frame, the same number of tokens from every frame."""

    name: ClassVar[str] = "equal-frames"

    def score(self, features: Tensor) -> Scores:
        tokens = super().score(features).tokens
        return Scores(tokens, torch.ones(len(tokens)))


@dataclass(frozen=True)
class Distance(SharpV):
    """Another distance in the place of Dissim, for ranking and for the frames' demands (scaled to at most 1)."""

    name: ClassVar[str] = "distance"

    distance: str = "1 - cos"

    def score(self, features: Tensor) -> Scores:
        apart = DISTANCES[self.distance]
        spatial = apart(features, features.mean(dim=1, keepdim=True))
        temporal = apart(features[1:], features[:-1])
        largest = torch.cat([spatial, temporal]).max().clamp(min=1e-12) / 2
        demand = frame_retention(spatial / largest, temporal / largest)
        return Scores(importance(spatial, temporal, self.weight), demand)


@dataclass(frozen=True)
class Ranked(SharpV):
    """The paper's demands, ranked by S alone, or by T alone with the first frame ranked by S."""

    name: ClassVar[str] = "ranked"

    by: str = "S"

    def score(self, features: Tensor) -> Scores:
        spatial, temporal = spatial_importance(features), temporal_importance(features)
        tokens = spatial if self.by == "S" else torch.cat([spatial[:1], temporal])
        return Scores(tokens, frame_retention(spatial, temporal))


@dataclass(frozen=True)
class Neighbourhood(SharpV):
    """T against the best match in the 3 x 3 places around the token in the frame before: tolerates small motion."""

    name: ClassVar[str] = "neighbourhood"

    def score(self, features: Tensor) -> Scores:
        frames, size, width = features.shape
        grid = features.view(frames, SIDE, SIDE, width)
        around = pad(grid.permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate").permute(0, 2, 3, 1)[:-1]
        shifts = [around[:, y : y + SIDE, x : x + SIDE] for y in range(3) for x in range(3)]
        temporal = torch.stack([dissimilarity(grid[1:], shift) for shift in shifts]).amin(dim=0).view(-1, size)
        spatial = spatial_importance(features)
        return Scores(importance(spatial, temporal, self.weight), frame_retention(spatial, temporal))


@dataclass(frozen=True)
class LastKept(SharpV):
    """T against the token that was kept last at that place: slow drift is refreshed. The paper's counts."""

    name: ClassVar[str] = "last-kept"

    def choose(self, features: Tensor, budget: Budget, present: Present) -> Selection:
        scores = self.score(features)
        assert scores.demand is not None
        counts = budget.counts(scores.demand, present)
        spatial = spatial_importance(features)
        seen, keep = features[0].clone(), []
        for frame, count, own in zip(features, counts, spatial, strict=True):
            worth = own if not keep else dissimilarity(frame, seen) + self.weight * own
            keep.append(keep_top(worth[None], count[None])[0])
            seen[keep[-1]] = frame[keep[-1]]
        return Selection(torch.stack(keep), scores)


METRICS: dict[str, SharpV] = {
    "SharpV: Dissim, T + S": SharpV(),
    **{f"{name} in the place of Dissim": Distance(distance=name) for name in DISTANCES},
    "S alone": Ranked(by="S"),
    "T alone, first frame by S": Ranked(by="T"),
    **{f"w = {weight}": SharpV(weight=weight) for weight in (0.25, 0.5, 2.0, 4.0)},
    "T in a 3 x 3 neighbourhood": Neighbourhood(),
    "T against the last kept": LastKept(),
}
