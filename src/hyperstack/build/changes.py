"""Dockerfile instructions that change a configuration: ``--change`` of commit and import.

They are read and carried out as in a build, as Docker does it; those that need files or commands,
and some others, are not allowed here.
"""

from __future__ import annotations

from collections.abc import Sequence

from hyperstack.build import dockerfile, instructions, metadata
from hyperstack.build.args import BuildArgs
from hyperstack.build.state import State
from hyperstack.errors import InvalidParameter
from hyperstack.model import ContainerConfig

MAX_CHANGES = 1 << 20
"""Characters of all changes."""
_ALLOWED = frozenset(
    "cmd entrypoint env expose healthcheck label onbuild stopsignal user volume workdir".split()
)


def apply_changes(config: ContainerConfig, changes: Sequence[str]) -> ContainerConfig:
    """Return *config* after the instructions. Raises InvalidParameter in Docker's words."""
    if sum(map(len, changes)) > MAX_CHANGES:
        raise InvalidParameter("the changes are too long")
    if not changes:
        return config
    text = dockerfile.read("\n".join(changes))
    state = State(name="", args=BuildArgs({}).stage(), config=config)
    for line in text.lines:
        if line.keyword not in _ALLOWED:
            raise InvalidParameter(f"{instructions.word_of(line)} is not a valid change command")
    for step in [instructions.parse_line(line, text.escape) for line in text.lines]:
        step = metadata.expanded(state, step, text.escape)
        if step.keyword == "workdir":
            state.set(working_dir=metadata.working_dir(state, step.args[0]))
        else:
            metadata.apply(state, step, text.escape)
    return state.config
