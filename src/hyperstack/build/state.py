"""What a stage has come to: its image, the configuration that grows, the arguments in scope."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from hyperstack.build.args import BuildArgs
from hyperstack.errors import InvalidParameter
from hyperstack.image.service import Image
from hyperstack.model import ContainerConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
NOP = "#(nop) "
"""In front of what is no command in an image's history."""


@dataclass(kw_only=True)
class State:
    """One stage. ``image`` is the full id of its last image, empty at the start of scratch."""

    name: str
    args: BuildArgs
    image: str = ""
    config: ContainerConfig = field(default_factory=ContainerConfig)
    author: str = ""
    cmd_set: bool = False

    def begin(self, base: Image | None) -> None:
        """Start from an image, or from scratch."""
        if base is not None:
            self.image, self.config = base.id, base.config
        if not any(entry.startswith("PATH=") for entry in self.config.env):
            env = (*self.config.env, f"PATH={DEFAULT_PATH}")
            self.config = replace(self.config, env=env)

    def set(self, **values: object) -> None:
        """Change the configuration."""
        self.config = replace(self.config, **values)

    @property
    def shell(self) -> tuple[str, ...]:
        """What runs commands that are no lists."""
        return self.config.shell or DEFAULT_SHELL

    def comment(self, text: str) -> tuple[str, ...]:
        """Return the command that stands in the history for a step that sets something."""
        return (*self.shell, NOP, text)

    def comment_of_files(self, text: str) -> tuple[str, ...]:
        """Return that of WORKDIR, COPY and ADD, whose text has ``NOP`` in it."""
        return (*self.shell, text)

    def command(self, args: Sequence[str], *, listed: bool) -> tuple[str, ...]:
        """Return a command line: the exec form as it is, the other one for the shell."""
        return tuple(args) if listed else (*self.shell, *args)

    def variables(self) -> dict[str, str]:
        """Return what instructions may expand: the image's variables, then arguments."""
        own = dict(entry.partition("=")[::2] for entry in self.config.env)
        return {**self.args.environment(self.config.env), **own}


class Stages:
    """The images of finished stages, by name and by number."""

    def __init__(self) -> None:
        self._images: list[str] = []
        self._names: dict[str, str] = {}

    def check_name(self, name: str) -> None:
        """Raise InvalidParameter if a stage is called so already."""
        if name and name in self._names:
            raise InvalidParameter(f"{name} stage name already used")

    def add(self, name: str, image: str) -> None:
        """A stage is finished."""
        self._images.append(image)
        if name:
            self._names[name] = image

    def named(self, name: str) -> str | None:
        """Return the image of the stage called *name*."""
        return self._names.get(name.lower())

    def find(self, name: str) -> str | None:
        """Return the image of a stage by name or number, None if there is no such stage.

        Raises InvalidParameter for a number that is none of a finished stage.
        """
        if (image := self.named(name)) is not None:
            return image
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", name):
            return None
        number = int(name)
        if number == len(self._images):
            raise InvalidParameter("refers to current build stage")
        if not 0 <= number < len(self._images):
            raise InvalidParameter("index out of bounds")
        return self._images[number]
