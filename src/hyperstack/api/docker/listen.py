"""The daemon's listeners: unix sockets, TCP (with mutual TLS) and sockets that systemd opened."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import socket
import ssl
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hyperstack.api.docker.server import ApiServer as Server
from hyperstack.config import Config
from hyperstack.errors import Conflict, InternalError, InvalidParameter

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine

log = logging.getLogger(__name__)

BACKLOG = 1024
PLAIN_PORT, TLS_PORT = 2375, 2376
FIRST_FD = 3
"""The first socket that systemd hands over (sd_listen_fds(3))."""
MAX_PATH = 107

__all__ = ["Listener", "Server", "check_hosts", "close_all", "open_all", "serve", "serve_metrics"]


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A bound socket. ``unlink``: the path to remove at the end."""

    name: str
    sock: socket.socket
    tls: ssl.SSLContext | None = None
    over_tcp: bool = False
    unlink: Path | None = None


def check_hosts(config: Config) -> None:
    """Refuse addresses that can't be listened on, or must not be. Raises InvalidParameter."""
    for host in config.hosts:
        scheme, rest = _split(host)
        if scheme == "unix" and len(os.fsencode(rest)) > MAX_PATH:
            raise InvalidParameter(f"socket path {rest} is longer than {MAX_PATH} bytes")
        if scheme == "tcp":
            _address(rest, config)
            if not config.tls_verify and not config.allow_insecure_tcp:
                raise InvalidParameter(
                    f"{host} without --tlsverify would give root on this host to everybody who "
                    "can connect: use --tlsverify with certificates, or say --allow-insecure-tcp"
                )


def _split(host: str) -> tuple[str, str]:
    scheme, separator, rest = host.partition("://")
    if not separator or scheme not in ("unix", "tcp", "fd"):
        raise InvalidParameter(
            f"invalid bind address ({host}): use unix:///path, tcp://host:port or fd://"
        )
    if scheme == "unix" and not rest.startswith("/"):
        raise InvalidParameter(f"invalid bind address ({host}): the path must be absolute")
    return scheme, rest


def _address(rest: str, config: Config) -> tuple[str, int]:
    """Return host and port of ``[host][:port]``; IPv6 in brackets."""
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        port = tail.removeprefix(":")
    else:
        host, _, port = rest.partition(":")
    if not port:
        port = str(TLS_PORT if config.tls_verify else PLAIN_PORT)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536) or "/" in host:
        raise InvalidParameter(f"invalid bind address (tcp://{rest})")
    return host or "127.0.0.1", int(port)


def open_all(config: Config, tls: ssl.SSLContext | None) -> list[Listener]:
    """Bind every address. Raises HyperError naming the one that can't be."""
    check_hosts(config)
    made: list[Listener] = []
    try:
        for host in config.hosts:
            scheme, rest = _split(host)
            if scheme == "unix":
                made.append(_unix(Path(rest), config.group))
            elif scheme == "tcp":
                made += _tcp(host, _address(rest, config), tls)
            else:
                made += _inherited(tls, config)
    except BaseException:
        close_all(made)
        raise
    return made


def _unix(path: Path, group: str) -> Listener:
    sock = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        # Bound with no rights for anybody, and opened to the group only when it is that group's.
        old = os.umask(0o777)
        try:
            sock.bind(str(path))
        finally:
            os.umask(old)
        os.chown(path, 0, _group_id(group))
        path.chmod(0o660)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise InternalError(f"can't listen on unix://{path}: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise
    return Listener(name=f"unix://{path}", sock=sock, unlink=path)


def _clear(path: Path) -> None:
    """Remove the socket of a daemon that is gone. Raises Conflict if somebody listens there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"can't listen on unix://{path}: the path exists and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # a full backlog, for one: somebody listens
    raise Conflict(f"can't listen on unix://{path}: another process listens there already")


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name.isascii() and name.isdigit():
            return int(name)
        log.warning("there is no group %s: the API's socket is for root alone", name)
        return 0


def _tcp(name: str, address: tuple[str, int], tls: ssl.SSLContext | None) -> list[Listener]:
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidParameter(f"invalid bind address ({name}): {error.strerror}") from error
    made: list[Listener] = []
    try:
        for family, kind, _, _, where in found:
            sock = socket.socket(family, kind)
            made.append(Listener(name=name, sock=sock, tls=tls, over_tcp=True))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(where)
            sock.listen(BACKLOG)
    except OSError as error:
        close_all(made)
        raise InternalError(f"can't listen on {name}: {error.strerror}") from error
    if tls is None:
        log.warning("%s takes requests of everybody without encryption: it is root's shell", name)
    return made


def _inherited(tls: ssl.SSLContext | None, config: Config) -> list[Listener]:
    """Take the sockets that systemd opened for us."""
    count = os.environ.get("LISTEN_FDS", "0")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit() or count == "0":
        raise InvalidParameter(
            "no sockets found via socket activation: make sure the service was started by systemd"
        )
    made = []
    for descriptor in range(FIRST_FD, FIRST_FD + int(count)):
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
        over_tcp = sock.family != socket.AF_UNIX
        if over_tcp and not config.tls_verify and not config.allow_insecure_tcp:
            raise InvalidParameter("fd:// is a TCP socket: use --tlsverify or --allow-insecure-tcp")
        made.append(
            Listener(
                name=f"fd://{descriptor}",
                sock=sock,
                tls=tls if over_tcp else None,
                over_tcp=over_tcp,
            )
        )
    return made


def close_all(listeners: Iterable[Listener]) -> None:
    """Close the sockets and remove their paths."""
    for listener in listeners:
        listener.sock.close()
        if listener.unlink is not None:
            with contextlib.suppress(OSError):
                listener.unlink.unlink()


async def serve(server: Server, listeners: Iterable[Listener]) -> list[asyncio.base_events.Server]:
    """Answer requests on bound sockets."""
    loop = asyncio.get_running_loop()
    made = []
    for listener in listeners:
        made.append(
            await loop.create_server(
                lambda one=listener: server.connection(one.tls, over_tcp=one.over_tcp),  # type: ignore[misc]
                sock=listener.sock,
                backlog=BACKLOG,
            )
        )
    return made


async def serve_metrics(engine: Engine, address: str) -> asyncio.base_events.Server:
    """Serve ``/metrics`` on ``host:port``. Raises InternalError if the address is taken."""
    from hyperstack.api.docker.routes import metrics

    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()):
        raise InvalidParameter(f"invalid metrics address: {address}")
    server = Server(engine, metrics.only())
    try:
        return await asyncio.get_running_loop().create_server(
            lambda: server.connection(over_tcp=True), host.strip("[]"), int(port)
        )
    except OSError as error:
        raise InternalError(f"can't listen on {address}: {error.strerror}") from error
