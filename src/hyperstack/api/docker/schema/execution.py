"""``GET /exec/{id}/json``."""

from __future__ import annotations

import base64
from typing import Any

from hyperstack.api.docker import detach
from hyperstack.model import Exec


def exec_inspect(found: Exec) -> dict[str, Any]:
    """Return an exec as inspect shows it."""
    config = found.config
    keys = detach.parse(config.detach_keys) if config.detach_keys else b""
    process: dict[str, Any] = {
        "tty": config.tty,
        "entrypoint": config.cmd[0] if config.cmd else "",
        "arguments": list(config.cmd[1:]),
        "privileged": config.privileged,
    }
    if config.user:
        process["user"] = config.user
    return {
        "ID": found.id,
        "Running": found.running,
        "ExitCode": found.exit_code,
        "ProcessConfig": process,
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": False,
        "ContainerID": found.container,
        "DetachKeys": base64.b64encode(keys).decode(),
        "Pid": found.pid,
    }
