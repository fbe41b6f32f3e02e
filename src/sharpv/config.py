"""One configuration: everything that can be asked for, checked, printed, saved and loaded. Needs no torch.

The library, the command line, lmms-eval and vLLM all build a :class:`Config`, and nothing else knows its fields.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

from .checks import is_real
from .kvcache.base import STAGES, SecondStage
from .kvcache.criteria import CosineThreshold
from .methods import METHODS, Method, SharpV
from .methods.budget import Budget
from .registry import Registry
from .vision.asked import Encoding
from .vision.rules import ENCODINGS, All, Rule

OFF = "off"
POSITIONS = ("original", "packed")
NAMED: dict[str, Registry[Any]] = {"method": METHODS, "memory": STAGES, "encode": ENCODINGS}
"""Fields that hold what is registered under a name."""


def _asked(default: Any, words: str) -> Any:
    """A field, and what the command line says of it."""
    return field(default=default, metadata={"help": words})


@dataclass(frozen=True)
class Config:
    """How a model is pruned.

    Args:
        method: which visual tokens are kept before the language model: a name (:func:`sharpv.list_methods`), also with
            parameters (``"sharpv:weight=0.5"``), or an instance such as ``SharpV(weight=0.5)``.
        retention: the KEPT share of each video's tokens, in (0, 1], met exactly. None: the content decides.
        max_tokens: ceiling on the kept tokens of each video.
        min_tokens_per_frame: floor on the kept tokens of each frame.
        memory: the second stage, inside the language model; None (or "off"): none. A number is the paper's M, as
            :class:`~sharpv.CosineThreshold`, which can cost answers of several tokens. A name with parameters
            (``"layers:0+23+24"``) or an instance such as ``KeepLayers((0, 23, 24))``, as :func:`sharpv.calibrate`
            finds them; ``FastV`` and ``VTW`` stand here too. It combines with every method.
        positions: "original": each survivor keeps its position in the full prompt, and the run equals a dense one with
            the dropped tokens masked. "packed": the shorter prompt is numbered from 0 (on multimodal RoPE all rows
            alike), as in the paper's pipeline.
        encode: which patches go through the vision tower, decided from pixels: "all"; "changed", every patch that
            differs from the one last encoded at its place; "kept", of these at most those that the kept tokens can
            need, which needs a budget. Also with parameters (``"changed:threshold=0.05"``) or an instance.
        frames_at_once: so many frames go through the vision tower at a time, which bounds its memory on long videos.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: an unknown name, or a value out of range.

    >>> config = Config("sharpv", retention=0.25)
    >>> config.save("mine.json"); Config.load("mine.json") == config
    True
    >>> print(config)
    sharpv retention=0.25
    """

    method: str | Method = _asked(
        "sharpv", "Which tokens are kept: 'sharpv methods'; with parameters sharpv:weight=0.5."
    )
    retention: float | None = _asked(None, "Kept share in (0, 1]. Default: the content decides.")
    max_tokens: int | None = _asked(None, "Most tokens kept of each video.")
    min_tokens_per_frame: int = _asked(0, "Fewest tokens kept of each frame.")
    memory: str | float | SecondStage | None = _asked(
        None, "Second stage: 'sharpv stages'. Layers as 'sharpv calibrate' finds them, the paper's M (0.2), or off."
    )
    positions: Literal["original", "packed"] = _asked("original", "Positions of the kept tokens: original or packed.")
    encode: str | Rule = _asked(
        All(), "Which patches go through the vision tower: all, changed, kept (no more than the budget can need)."
    )
    frames_at_once: int | None = _asked(None, "Frames in the vision tower at a time. Default: all.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", _method(self.method))
        object.__setattr__(self, "memory", _memory(self.memory))
        for part in (self.budget, self.encoding):  # they check their own
            for each in fields(part):
                object.__setattr__(self, each.name, getattr(part, each.name))
        if self.positions not in POSITIONS:
            raise ValueError(f"positions must be 'original' or 'packed', got {self.positions!r}")
        self.first.require_budget(self.budget)
        cast(Rule, self.encode).require_budget(self.budget)

    @classmethod
    def of(cls, config: Config | Method | str, **changes: Any) -> Config:
        """A configuration, or the one for a method, with some fields changed.

        Raises:
            TypeError: a field that there is not, and as the class.
            ValueError: as the class.
        """
        _known(changes)
        if isinstance(config, Config):
            return replace(config, **changes)
        if "method" in changes:
            raise TypeError(f"the method comes first, without a name: pass {changes['method']!r} in its place")
        return cls(config, **changes)

    @property
    def first(self) -> Method:
        """The method, resolved."""
        return cast(Method, self.method)

    @property
    def second(self) -> SecondStage | None:
        """The second stage, resolved."""
        return cast("SecondStage | None", self.memory)

    @property
    def budget(self) -> Budget:
        return Budget(self.retention, self.max_tokens, self.min_tokens_per_frame)

    @property
    def encoding(self) -> Encoding:
        return Encoding(self.encode, self.frames_at_once)

    def __str__(self) -> str:
        """One line: the method, then what differs from the defaults, as on the command line."""
        parts = [METHODS.spell(self.first)]
        for each in fields(self)[1:]:
            value = getattr(self, each.name)
            if value != each.default:
                parts.append(f"{each.name}={NAMED[each.name].spell(value) if each.name in NAMED else value}")
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, every field in it, and the version of sharpv that wrote it."""
        from . import __version__

        values = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, registry in NAMED.items():
            values[name] = None if values[name] is None else registry.to_dict(values[name])
        return {"sharpv": __version__, **values}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Config:
        """The inverse of :meth:`to_dict`; what is left out has its default, names may stand for dicts.

        Raises:
            TypeError, ValueError: as the class, and a field that there is not.
        """
        values = {name: value for name, value in data.items() if name != "sharpv"}
        _known(values)
        for name, registry in NAMED.items():
            if isinstance(values.get(name), Mapping):
                values[name] = registry.from_dict(values[name], name)
        return cls(**values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON: whole, or not at all."""
        path = Path(path)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
            file.write(json.dumps(self.to_dict(), indent=2) + "\n")
        Path(file.name).replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Config:
        """Read what :meth:`save` wrote.

        Raises:
            OSError: a file that cannot be read.
            ValueError: one that holds no configuration, or one that is not accepted; the message names the file.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(data, dict):
                raise TypeError(f"it holds {type(data).__name__}, not an object")
            return cls.from_dict(data)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{str(path)!r} is not a configuration: {error}") from error


def options() -> tuple[Field[Any], ...]:
    """The fields of :class:`Config`, for doors that offer each of them."""
    return fields(Config)


def _known(values: Mapping[str, Any]) -> None:
    names = [each.name for each in fields(Config)]
    for name in values:
        if name not in names:
            import difflib

            near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
            hint = f", did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
            raise TypeError(f"a configuration has no field {name!r}{hint}")


def _method(method: str | Method) -> Method:
    if isinstance(method, str) and (name := method.partition(":")[0]) in STAGES and name not in METHODS:
        raise ValueError(f"{name!r} acts inside the language model: pass memory={method!r}, beside any method")
    return METHODS.make(method, "method")


def _memory(memory: str | float | SecondStage | None) -> SecondStage | None:
    if memory is None or memory == OFF:
        return None
    if isinstance(memory, str):
        try:
            memory = float(memory)
        except ValueError:
            return STAGES.make(cast(str, memory), "memory")
    if is_real(memory):
        return CosineThreshold(cast(float, memory))
    return STAGES.make(cast(Any, memory), "memory")


PAPER = Config(SharpV(), memory=CosineThreshold(0.2), positions="packed")
"""The paper's own setting: both stages, w = 1, M = 0.2, survivors numbered anew."""
