"""What a guest says about itself, brought into the bounds that the rest of the engine relies on.

The protocol checks the form of an agent's messages; their numbers may be anything. A number that is
only shown is cut to what it can be. One on which something depends ends the connection.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, TypeVar

from hyperstack.guest import messages
from hyperstack.guest.codec import ProtocolError
from hyperstack.model import PathStat

T = TypeVar("T", messages.Stats, messages.NicStats)

MOST_PROCESSES = 4096
"""Processes that an agent knows at once, by ``docs/agent-protocol.md``."""
MOST_HANDLE = 1 << 29
"""Handles are below it, so that their stream ids, four times as large, have 32 bits."""
MOST_NAME = 4096
MOST_NICS = 64
AHEAD = 86_400 * 1_000_000_000
"""Nanoseconds by which a guest's clock may be ahead of ours."""


def exit_code(code: int) -> int:
    """Return an exit code as wait(2) could have given it."""
    return min(max(code, 0), 255)


def moment(time_ns: int) -> int:
    """Return a time of a guest, or now if it tells none or one that can't be."""
    now = time.time_ns()
    return time_ns if 0 < time_ns <= now + AHEAD else now


def path_stat(found: messages.PathStat) -> PathStat:
    """Return what a guest says of a path, as a kernel could have said it."""
    return PathStat(
        name=found.name[:MOST_NAME],
        size=max(found.size, 0),
        mode=found.mode & 0xFFFF,
        mtime_ns=found.mtime_ns,
        link_target=found.link_target[:MOST_NAME],
    )


def counters(found: T) -> T:
    """Return a message of counters without negative ones, which clients can't read."""
    values: dict[str, Any] = {n: max(v, 0) for n, v in vars(found).items() if isinstance(v, int)}
    return dataclasses.replace(found, **values)


def stats(found: messages.Stats) -> messages.Stats:
    """Return a guest's counters, none below zero, and of so many interfaces as there can be."""
    nics = tuple(counters(nic) for nic in found.nics[:MOST_NICS])
    return dataclasses.replace(counters(found), nics=nics)


def check(state: messages.State) -> messages.State:
    """Return what an agent knows if it can be. Raises ProtocolError."""
    handles = [process.handle for process in state.processes]
    streams = [
        stream
        for process in state.processes
        for stream in (process.stdin, process.stdout, process.stderr)
        if stream
    ]
    if (
        len(handles) > MOST_PROCESSES
        or len(set(handles)) != len(handles)
        or len(set(streams)) != len(streams)
        or not all(0 < handle < MOST_HANDLE for handle in handles)
        or not all(0 < stream < 1 << 32 for stream in streams)
        or any(process.stdin_taken < 0 for process in state.processes)
    ):
        raise ProtocolError("the guest's agent tells of processes that can't be")
    return state
