"""What a guest says about itself, brought into the bounds that the rest of the engine relies on.

The protocol checks the form of an agent's messages; their numbers may be anything. A number that is
only shown is cut to what it can be. One on which something depends ends the connection.
"""

from __future__ import annotations

import time

from hyperstack.guest import messages
from hyperstack.guest.codec import ProtocolError

MOST_PROCESSES = 4096
"""Processes that an agent knows at once, by ``docs/agent-protocol.md``."""
MOST_HANDLE = 1 << 29
"""Handles are below it, so that their stream ids, four times as large, have 32 bits."""
AHEAD = 86_400 * 1_000_000_000
"""Nanoseconds by which a guest's clock may be ahead of ours."""


def exit_code(code: int) -> int:
    """Return an exit code as wait(2) could have given it."""
    return min(max(code, 0), 255)


def moment(time_ns: int) -> int:
    """Return a time of a guest, or now if it tells none or one that can't be."""
    now = time.time_ns()
    return time_ns if 0 < time_ns <= now + AHEAD else now


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
