"""Servers of the tests: Debian's registry as it is, a token server, and one that is hostile."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

REGISTRY = "docker-registry"


def free_port() -> int:
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A running docker-registry."""

    port: int
    root: Path
    scheme: str = "http"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def base(self) -> str:
        return f"{self.scheme}://{self.host}"

    def manifest(self, repository: str, name: str) -> bytes:
        """Return a manifest's bytes from the registry's own disk."""
        root = self.root / "docker/registry/v2"
        if not name.startswith("sha256:"):
            link = root / f"repositories/{repository}/_manifests/tags/{name}/current/link"
            name = link.read_text()
        return self.blob(name)

    def blob(self, digest: str) -> bytes:
        """Return a blob from the registry's own disk."""
        hexa = digest.removeprefix("sha256:")
        path = self.root / f"docker/registry/v2/blobs/sha256/{hexa[:2]}/{hexa}/data"
        return path.read_bytes()


@contextlib.contextmanager
def running_registry(root: Path, enter: Sequence[str] = (), **more: object) -> Iterator[Registry]:
    """Run docker-registry on loopback; *more* are sections of its configuration.

    *enter* are the words that put a command into another network namespace.
    """
    root.mkdir(parents=True, exist_ok=True)
    port = free_port()
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}"}
    http.update(more.pop("http", {}))  # type: ignore[call-overload]
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}},
        "http": http,
        **more,
    }
    path = root / "config.yml"
    path.write_text(json.dumps(config))  # YAML is a superset of JSON
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [*enter, REGISTRY, "serve", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        scheme = "https" if "tls" in http else "http"
        registry = Registry(port=port, root=root / "data", scheme=scheme)
        if enter:
            _wait_inside(registry, enter)
        else:
            _wait(registry, process, root / "log")
        yield registry
    finally:
        process.terminate()
        process.wait(20)


def _wait_inside(registry: Registry, enter: Sequence[str]) -> None:
    program = f"import socket; socket.create_connection(('127.0.0.1', {registry.port}), 1)"
    for _ in range(100):
        if not subprocess.run(
            [*enter, sys.executable, "-c", program], stderr=subprocess.DEVNULL, check=False
        ).returncode:
            return
        time.sleep(0.05)
    raise RuntimeError("docker-registry did not come up")


def _wait(registry: Registry, process: subprocess.Popen[bytes], log: Path) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for _ in range(500):
        try:
            urllib.request.urlopen(f"{registry.base}/v2/", timeout=2, context=context).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.02)
    raise RuntimeError(f"docker-registry did not come up:\n{log.read_text()[-2000:]}")


@dataclass(kw_only=True)
class Seen:
    """One request as a server saw it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    form: dict[str, str] = field(default_factory=dict)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(kw_only=True)
class Server:
    """A small server on loopback that answers by one function and remembers what it was asked."""

    port: int
    seen: list[Seen]
    scheme: str = "http"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def base(self) -> str:
        return f"{self.scheme}://{self.host}"

    def asked(self, part: str, method: str = "") -> list[Seen]:
        return [s for s in self.seen if part in s.path and method in ("", s.method)]


@contextlib.asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve on loopback while the block runs."""
    scheme = "https" if context else "http"
    server = Server(port=free_port(), seen=[], scheme=scheme)

    async def handle(request: web.Request) -> web.StreamResponse:
        form = {}
        if request.content_type == "application/x-www-form-urlencoded":
            form = {key: str(value) for key, value in (await request.post()).items()}
        server.seen.append(
            Seen(
                method=request.method,
                path=request.path,
                query=dict(request.query),
                headers=dict(request.headers),
                form=form,
            )
        )
        return await handler(request)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", server.port, ssl_context=context).start()
    try:
        yield server
    finally:
        await runner.cleanup()
        await asyncio.sleep(0)


class Certificates:
    """An authority and a server certificate for 127.0.0.1, made by openssl."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca = folder / "ca.crt"
        self.cert, self.key = folder / "server.crt", folder / "server.key"
        self._openssl(
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        )
        self._openssl(
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=registry",
            "-keyout",
            "server.key",
            "-out",
            "server.csr",
        )
        (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
        self._openssl(
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "ext",
            "-out",
            "server.crt",
        )

    def _openssl(self, *args: str) -> None:
        subprocess.run(["openssl", *args], cwd=self.folder, check=True, capture_output=True)

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert, self.key)
        return context


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
