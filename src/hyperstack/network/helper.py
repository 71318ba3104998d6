"""The port helper: a small process per endpoint that publishes ports (``native/ports``).

It holds the sockets that guard the ports, and serves connections that no rule can translate: to
IPv6's loopback, and from IPv6 to a container that has only IPv4. It runs as the sandbox's uid in
the sandbox's cgroup, without privileges, so it outlives the daemon and ends with its sandbox. Its
pid and start time are in a file that it writes itself.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

from hyperstack.config import Config
from hyperstack.guest.kit import native_binary
from hyperstack.ids import EndpointId
from hyperstack.network.rows import Publication
from hyperstack.platform import process
from hyperstack.platform.process import ProcessHandle, open_process

EARLIER = "ports.pid"
"""The pid file of a version that knew one helper of a sandbox only."""
TIMEOUT = 10.0


class PortHelper:
    """Starts and finds the port helpers: containers that share a sandbox have one each."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._binary: Path | None = None

    def load(self) -> None:
        """Find the helper's program; blocking. Raises Unavailable."""
        self._binary = native_binary("ports")

    def pidfile(self, sandbox: str, endpoint: EndpointId) -> Path:
        """The file that an endpoint's helper writes: pid and start time."""
        return self._config.sandbox_run_dir(sandbox) / f"ports-{endpoint[:12]}.pid"

    def available(self) -> bool:
        """Tell whether the program is there."""
        return self._binary is not None

    async def start(
        self,
        sandbox: str,
        endpoint: EndpointId,
        uid: int,
        served: Sequence[tuple[Publication, str, socket.socket]],
        cgroups: Sequence[Path],
    ) -> None:
        """Hand sockets to a new helper, each with the address in the container that it leads to.

        Raises InternalError if it can't be started.
        """
        assert self._binary is not None
        pidfile = self.pidfile(sandbox, endpoint)
        pidfile.parent.mkdir(parents=True, exist_ok=True)
        argv: list[str] = [str(self._binary), str(pidfile), str(uid)]
        argv += [str(folder / "cgroup.procs") for folder in cgroups if folder.is_dir()]
        argv.append("--")
        for publication, address, sock in served:
            p = publication
            argv += [f"{sock.fileno()},{p.protocol},{address},{p.port}"]
        await process.run(argv, timeout=TIMEOUT, pass_fds=[sock.fileno() for _, _, sock in served])

    def find(self, sandbox: str, endpoint: EndpointId) -> ProcessHandle | None:
        """Get hold of an endpoint's helper, None if it has none."""
        own = self.pidfile(sandbox, endpoint)
        for path in (own, own.with_name(EARLIER)):
            with contextlib.suppress(OSError, ValueError, IndexError):
                words = path.read_text().split()
                if (found := open_process(int(words[0]), int(words[1]))) is not None:
                    return found
        return None

    async def stop(self, sandbox: str, endpoint: EndpointId) -> None:
        """End an endpoint's helper, which frees its ports; nothing happens if there is none."""
        helper = self.find(sandbox, endpoint)
        if helper is not None:
            with contextlib.closing(helper):
                await helper.kill()
        self.pidfile(sandbox, endpoint).unlink(missing_ok=True)
