"""Where the app's questions are answered: limits, the model, one question at a time. Knows nothing of the interface."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .. import asking, pocket
from ..checks import number, whole
from ..config import Config
from ..door import apply
from ..embedded import names as embedded_names
from ..methods import METHODS
from ..video import Clip, VideoError, read_video
from ..view.page import Asked

SAMPLES = ("mover", "cut", "static")
PIXELS = 1280 * 720
"""Of a frame, at most: larger ones are scaled down as they are read."""


@dataclass(frozen=True)
class Limits:
    """What the app accepts.

    Args:
        megabytes: of an uploaded file.
        seconds: of a clip.
        frames: sampled from a clip.
        letters: of a question.
        tokens: of an answer.

    Raises:
        TypeError, ValueError: not a number, or not above 0.
    """

    megabytes: int = 100
    seconds: float = 600.0
    frames: int = 32
    letters: int = 500
    tokens: int = 128

    def __post_init__(self) -> None:
        for name in ("megabytes", "frames", "letters", "tokens"):
            whole(name, getattr(self, name), least=1)
        number("seconds", self.seconds, above=0)


@dataclass(frozen=True)
class Wish:
    """What somebody asks for.

    Attributes:
        video: path of the clip.
        question: about it.
        frames: to sample.
        method: its name.
        retention: kept share in (0, 1]; None: the content decides.
    """

    video: str | None
    question: str
    frames: int
    method: str
    retention: float | None

    @property
    def about(self) -> tuple[str | None, str, int]:
        """What the dense answer depends on."""
        return self.video, self.question, self.frames


@dataclass(frozen=True)
class Known:
    """A dense answer, and what it answers: a moved budget does not change it."""

    about: tuple[str | None, str, int]
    dense: asking.Answer


class Desk:
    """A model that is asked.

    Args:
        model: ``"pocket"``, ``"smol"``, a directory or a hub id.
        device, dtype: as in :func:`sharpv.asking.load`.
        limits: what is accepted.

    Raises:
        ValueError: what :func:`sharpv.asking.load` refuses.

    >>> asked, clip, known = Desk("pocket").ask(Wish(str(pocket.sample_clip()), "Who?", 8, "sharpv", 0.25), None)
    """

    def __init__(
        self, model: str = "pocket", device: str = "auto", dtype: str = "auto", limits: Limits | None = None
    ) -> None:
        self.name, self.limits = model, limits or Limits()
        self.model, self.processor = asking.load(model, device, dtype)

    @property
    def note(self) -> str:
        """What has to be said of the model's answers."""
        return asking.SMALL_WORLD.format(self.name) if self.name in embedded_names() else ""

    def ask(self, wish: Wish, known: Known | None) -> tuple[Asked, Clip, Known]:
        """Answer dense, unless that is ``known``, and pruned.

        Raises:
            ValueError: a wish that cannot be met; the message is a sentence for whoever asked.
        """
        config = self._config(wish)
        question = self._question(wish.question)
        clip = self._clip(wish)
        inputs = asking.encode(self.model, self.processor, clip, question)
        if known is None or known.about != wish.about:
            known = Known(wish.about, asking.answer(self.model, self.processor, inputs, self.limits.tokens))
        with apply(self.model, config) as pruning:
            pruned = asking.answer(self.model, self.processor, inputs, self.limits.tokens)
        assert pruning.report is not None
        return Asked(pruning.report, question, pruned, known.dense, note=self.note), clip, known

    def _config(self, wish: Wish) -> Config:
        if wish.method not in METHODS:
            raise ValueError(f"There is no method {wish.method!r}.")
        if wish.retention is None and not METHODS[wish.method].adaptive:
            raise ValueError(f"The method {wish.method} keeps a share that you choose: move the slider.")
        return Config(wish.method, retention=wish.retention)

    def _question(self, text: str) -> str:
        question = text.strip()
        if not question:
            raise ValueError("Ask a question about the clip.")
        if len(question) > self.limits.letters:
            raise ValueError(f"The question has {len(question)} letters, more than {self.limits.letters}.")
        return question

    def _clip(self, wish: Wish) -> Clip:
        if not wish.video:
            raise ValueError("Upload a clip, or pick a sample.")
        path, limits = Path(wish.video), self.limits
        if path.stat().st_size > limits.megabytes * 1_000_000:
            raise ValueError(f"The clip has more than {limits.megabytes} MB.")
        if not 1 <= wish.frames <= limits.frames:
            raise ValueError(f"Frames must be 1 to {limits.frames}, got {wish.frames}.")
        try:
            clip = read_video(path, frames=wish.frames, max_pixels=PIXELS)
        except VideoError as error:  # where the server keeps it is nobody's business
            raise ValueError(str(error).replace(str(path), path.name)) from error
        if clip.duration > limits.seconds:
            raise ValueError(f"The clip is {clip.duration:.0f} s long, more than {limits.seconds:g} s.")
        return clip


def sample(name: str) -> tuple[str, str]:
    """A sample clip's path and a question about it."""
    path = pocket.sample_clip(name)
    questions = json.loads(path.with_suffix(".json").read_text())["questions"]
    return str(path), questions[0]["prompt"]
