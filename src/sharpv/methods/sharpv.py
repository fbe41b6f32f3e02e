"""Visual SharpV: keep, frame by frame, the tokens that differ from their surroundings in space and time.

Paper: Sharp Eyes and Memory for VideoLLMs, https://arxiv.org/abs/2511.08003 (Qin, Zou, Lu, Yan, Hu; AAAI 2026). No
reference implementation is known; this one follows the paper's formulas. Ours where the paper is silent: ``r_t * N`` is
rounded to the nearest integer; a video keeps at least one token; ties go to the lower index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..checks import number, set_numbers
from .base import METHODS, Method, Scores
from .importance import frame_retention, importance, surroundings

if TYPE_CHECKING:
    from torch import Tensor


@METHODS.register
@dataclass(frozen=True)
class SharpV(Method):
    """Visual SharpV, arXiv 2511.08003, stage 1. Cost O(T N D), no attention read.

    Args:
        weight: w, the weight of the spatial term in I_t = T_t + w S_t. Paper: 1.
        mode: "adaptive": frame t keeps the share r_t = RMS(T_t) / 2. "manual": every token with I > K is kept.
        threshold: K of the manual mode. Paper: 1.6. It does not carry over between feature spaces: check what it
            keeps on yours.

    Corner cases: a frame equal to its predecessor asks for nothing and may keep nothing; a one-frame video is judged
    by S alone; a frame of one token has S = 0; when all features are equal, one token of the video survives.

    >>> SharpV().select(torch.randn(8, 49, 128)).keep.float().mean()   # unrelated frames: r_t is near 0.71
    """

    name: ClassVar[str] = "sharpv"
    summary: ClassVar[str] = "tokens that differ in space and time, more from a moving frame"
    adaptive: ClassVar[bool] = True
    reads_all: ClassVar[bool] = True
    paper: ClassVar[str] = "2511.08003"

    weight: float = 1.0
    mode: Literal["adaptive", "manual"] = "adaptive"
    threshold: float = 1.6

    def __post_init__(self) -> None:
        if self.mode not in ("adaptive", "manual"):
            raise ValueError(f"mode must be 'adaptive' or 'manual', got {self.mode!r}")
        weight, threshold = number("weight", self.weight, least=0), number("threshold", self.threshold)
        set_numbers(self, weight=weight, threshold=threshold)

    def score(self, features: Tensor) -> Scores:
        # 1. S_t[i] = Dissim(F_t[i], mean_j F_t[j]) and T_t[i] = Dissim(F_t[i], F_{t-1}[i])
        spatial, temporal = surroundings(features)
        # 2. I_t = T_t + w S_t, I_1 = S_1
        tokens = importance(spatial, temporal, self.weight)
        # 3. how much of each frame: r_t = RMS(T_t) / 2, or what exceeds K
        if self.mode == "manual":
            return Scores(tokens, (tokens > self.threshold).float().mean(dim=1))
        return Scores(tokens, frame_retention(spatial, temporal))
