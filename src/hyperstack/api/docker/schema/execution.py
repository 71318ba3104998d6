"""``GET /exec/{id}/json``."""

from __future__ import annotations

from typing import Any

from hyperstack.model import Exec


def exec_inspect(found: Exec) -> dict[str, Any]:
    """Return an exec as inspect shows it."""
    config = found.config
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
        "DetachKeys": "",
        "Pid": found.pid,
    }
