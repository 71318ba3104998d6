"""What a build was asked for, and what it says while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hyperstack.errors import InternalError
from hyperstack.image.progress import Progress
from hyperstack.model import HostConfig

if TYPE_CHECKING:
    from hyperstack.image.auth import AuthConfig


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """The parameters of ``POST /build`` that the classic builder knows."""

    remote: str = ""
    """Address of the context or of a Dockerfile; empty: the context is the request's body."""
    dockerfile: str = ""
    """Path in the context; empty means ``Dockerfile``."""
    tags: tuple[str, ...] = ()
    quiet: bool = False
    no_cache: bool = False
    cache_from: tuple[str, ...] = ()
    pull: bool = False
    """Pull base images although they are here."""
    remove: bool = True
    """Remove containers of steps that went well."""
    force_remove: bool = False
    """Remove them in any case."""
    build_args: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    target: str = ""
    host: HostConfig = field(default_factory=HostConfig)
    """Limits, network and hosts of RUN's containers."""
    auth: Mapping[str, AuthConfig] = field(default_factory=dict)
    """Credentials by registry host."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """One piece of output: text, what a container wrote to stderr, an id, or a pull's progress."""

    text: str = ""
    stderr: bool = False
    image: str = ""
    """The id of a stage's last image."""
    progress: Progress | None = None
    built: str = ""
    """The id of the image that was built: all that a quiet build says."""


class StepFailed(InternalError):
    """A command of RUN ended with another code than 0."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
