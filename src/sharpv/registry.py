"""Names to classes: what registers here can be named on the command line, in a configuration file, and in tests."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T], Mapping[str, type[T]]):
    """Frozen dataclasses by their ``name``, in the order in which they registered.

    A class registers with :meth:`register`. One that another package holds is found through an entry point that names
    its module, in the registry's group; it is imported at the first look.

    Args:
        base: what registered classes derive from.
        kind: in words, for messages.
        group: of entry points.

    >>> METHODS["sharpv"]
    <class 'sharpv.methods.sharpv.SharpV'>
    """

    def __init__(self, base: type[T], kind: str, group: str) -> None:
        self.base, self.kind, self.group = base, kind, group
        self._classes: dict[str, type[T]] = {}

    def register(self, cls: type[T]) -> type[T]:
        """A class decorator.

        Raises:
            ValueError: a name that another class has.
        """
        name: str = getattr(cls, "name", "")
        known = self._classes.get(name)
        if not name or (known is not None and known.__qualname__ != cls.__qualname__):
            raise ValueError(f"a {self.kind} needs a name of its own, got {name!r} for {cls.__name__}")
        self._classes[name] = cls
        return cls

    @cached_property
    def _all(self) -> dict[str, type[T]]:
        for entry in entry_points(group=self.group):
            entry.load()
        return self._classes

    def __getitem__(self, name: str) -> type[T]:
        try:
            return self._all[name]
        except (KeyError, TypeError) as error:
            raise KeyError(name) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def make(self, what: str | T, field: str) -> T:
        """An instance from its spelling, ``"name"`` or ``"name:value,field=value"``; an instance is returned as it is.

        Values fill the fields in order unless a field is named; lists are joined by ``+``.

        Raises:
            ValueError: an unknown name (the nearest known one is suggested) or field, or a value that is refused.
            TypeError: neither text nor an instance.

        >>> STAGES.make("layers:0+23+24", "memory")
        KeepLayers(keep=(0, 23, 24))
        """
        if isinstance(what, self.base):
            return what
        if not isinstance(what, str):
            given = f"the class {what.__name__}" if isinstance(what, type) else type(what).__name__
            raise TypeError(f"{field} must be a name or an instance of a {self.kind}, got {given}")
        name, colon, rest = what.partition(":")
        cls = self._known(name, field)
        names = [each.name for each in parameters(cls)]
        values: dict[str, Any] = {}
        for place, part in enumerate(rest.split(",") if colon else []):
            key, equals, text = part.partition("=")
            if not equals:
                key, text = (names[place] if place < len(names) else ""), part
            if key.strip() not in names:
                has = f"it has {', '.join(names)}" if names else "it has none"
                raise ValueError(f"{field} {name!r} has no parameter {key.strip() or part!r}; {has}")
            values[key.strip()] = _value(text.strip())
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"{field} {what!r}: {error}") from error

    def spell(self, instance: T) -> str:
        """The inverse of :meth:`make`: parameters that differ from their defaults are named."""
        parts = [f"{key}={_text(value)}" for key, value in _changed(instance).items()]
        return f"{instance.name}:{','.join(parts)}" if parts else str(instance.name)  # type: ignore[attr-defined]

    def to_dict(self, instance: T) -> dict[str, Any]:
        """Plain data: the name and every parameter."""
        plain: dict[str, Any] = _plain(instance)
        return plain

    def from_dict(self, data: Mapping[str, Any], field: str) -> T:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: no name, or one that is not known; a parameter that there is not.
        """
        values = dict(data)
        cls = self._known(values.pop("name", None), field)
        names = [each.name for each in parameters(cls)]
        for key, value in values.items():
            if key not in names:
                raise ValueError(f"{field} {data['name']!r} has no parameter {key!r}; it has {', '.join(names)}")
            if isinstance(value, Mapping):
                values[key] = self.from_dict(value, field)
            elif isinstance(value, list):
                values[key] = tuple(value)
        return cls(**values)

    def _known(self, name: Any, field: str) -> type[T]:
        if name not in self:
            near = difflib.get_close_matches(str(name).lower(), list(self), n=1, cutoff=0.5)
            hint = f", did you mean {near[0]!r}?" if near else ";"
            raise ValueError(f"unknown {field} {name!r}{hint} known: {', '.join(sorted(self))}")
        return self[name]


def parameters(of: Any) -> list[Field[Any]]:
    """The fields of a registered class that can be asked for; what a run fills in itself is not shown in its repr."""
    return [each for each in fields(of) if each.repr]


def _changed(instance: Any) -> dict[str, Any]:
    values = {each.name: (getattr(instance, each.name), each.default) for each in parameters(instance)}
    return {key: value for key, (value, default) in values.items() if default is MISSING or value != default}


def _value(text: str) -> Any:
    """A parameter as it is written on a command line: JSON where it is some, a list joined by +, else text."""
    words = {"true": True, "false": False, "none": None, "": ()}
    if text in words:
        return words[text]
    if "+" in text.lstrip("+"):
        return tuple(_value(part) for part in text.split("+"))
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "+".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {"name": value.name, **{each.name: _plain(getattr(value, each.name)) for each in parameters(value)}}  # type: ignore[attr-defined]
    return list(value) if isinstance(value, tuple) else value
