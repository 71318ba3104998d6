"""Build arguments: which ARGs are in scope, and what ``--build-arg`` makes of them.

Dockerfile reference, "ARG", "Scope", "Predefined ARGs".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PREDEFINED = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
"""Allowed without ARG, and no part of the history or the cache unless declared."""


class BuildArgs:
    """The arguments of one build; ``stage`` gives each stage its own scope."""

    def __init__(self, options: Mapping[str, str | None]) -> None:
        self._options = options
        self._meta: dict[str, str | None] = {}
        self._allowed: dict[str, str | None] = {}
        self._referenced: set[str] = set()

    def stage(self) -> BuildArgs:
        """Return the scope of a new stage: nothing declared yet."""
        made = BuildArgs(self._options)
        made._meta = dict(self._meta)
        made._referenced = self._referenced
        return made

    def add(self, name: str, default: str | None) -> None:
        """ARG in a stage."""
        self._allowed[name] = default
        self._referenced.add(name)

    def add_meta(self, name: str, default: str | None) -> None:
        """ARG in front of the first FROM."""
        self.add(name, default)
        self._meta[name] = default

    def for_from(self) -> dict[str, str]:
        """Return the variables that FROM may use."""
        return self._values(self._meta)

    def in_scope(self) -> dict[str, str]:
        """Return all that are declared and have a value, predefined ones included."""
        return self._values(self._allowed)

    def environment(self, env: Sequence[str]) -> dict[str, str]:
        """Return what a step sees beside the image's own variables *env*, which win."""
        own = {entry.partition("=")[0] for entry in env}
        return {name: value for name, value in self.in_scope().items() if name not in own}

    def counts(self, name: str) -> bool:
        """Tell whether an argument belongs to the cache's key: predefined ones only if declared."""
        return name in self._allowed or name not in PREDEFINED

    def unused(self) -> list[str]:
        """Return what was given and never asked for."""
        return [
            name
            for name in self._options
            if name not in self._referenced and name not in PREDEFINED
        ]

    def _values(self, declared: Mapping[str, str | None]) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in dict.fromkeys((*declared, *sorted(PREDEFINED))):
            value = self._value(name, declared)
            if value is not None:
                found[name] = value
        return found

    def _value(self, name: str, declared: Mapping[str, str | None]) -> str | None:
        if (given := self._options.get(name)) is not None:
            return given
        default = declared.get(name)
        return self._meta.get(name) if default is None else default
