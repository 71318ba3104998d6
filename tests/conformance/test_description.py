"""Every operation of the API's description, asked in right and in wrong ways: none is a fault.

A fault is no answer within a bound, a connection that breaks, or what the daemon did not expect:
the sentence "internal error" and a traceback in its log. A status of 500 alone is none: dockerd
itself has it for numbers that it can't read, registries that it can't reach and more.
``HYPER_ASKS`` and ``HYPER_SEED`` ask more often and otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.raw import ask, connected
from tests.framework.description import Description, Made
from tests.framework.host import Host, running_host
from tests.framework.images import busybox_tar

ASKS = int(os.environ.get("HYPER_ASKS", "12"))
SEED = int(os.environ.get("HYPER_SEED", "1"))
BOUND = 20.0
"""Seconds for the head of an answer."""
STREAM = 0.2
"""Seconds for which a stream is read."""
LEFT_OUT = {
    ("POST", "/session"),  # refused by its upgrade
    ("POST", "/containers/{id}/wait"),  # waits, as it should
}
NAMES = {
    "containers": ["calm", "ended", "x"],
    "images": ["busybox", "busybox:latest", "x/y:z"],
    "networks": ["bridge", "own", "none"],
    "volumes": ["own", "x"],
}


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory, worker_number: int) -> Iterator[Host]:
    """A daemon that may lose everything it has."""
    with running_host(tmp_path_factory.mktemp("said"), worker_number + 30) as host:
        yield host


def restore(host: Host) -> None:
    """Make the objects of ``NAMES``, as far as they are gone."""
    if ask(host, "GET", "/images/busybox/json")[0] != 200:
        host.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar())
    calm = ask(host, "GET", "/containers/calm/json")[1]
    if not calm.get("State", {}).get("Running") or calm["State"]["Paused"]:
        host.docker("rm", "-f", "calm", check=False)
        host.docker("run", "-d", "--init", "--name", "calm", "busybox", "sleep", "100000")
    host.docker("create", "--name", "ended", "busybox", "true", check=False)
    host.docker("network", "create", "own", check=False)
    host.docker("volume", "create", "own", check=False)


def without_the_host(body: bytes | None) -> bytes | None:
    """Take binds out of a container to be made: a missing one is made on the host."""
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        made: Any = json.loads(body or b"")
        made["HostConfig"].pop("Binds", None)
        made["HostConfig"].pop("Mounts", None)
        return json.dumps(made).encode()
    return body


def said(host: Host, made: Made) -> str:
    """Return why an answer is a fault, or nothing."""
    lines = [f"{made.method} /v1.51{made.path} HTTP/1.1", "Host: d", "Connection: close"]
    if made.body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(made.body)}"]
    data = bytearray()
    with connected(host) as sock:
        sock.settimeout(BOUND)
        with contextlib.suppress(BrokenPipeError):
            sock.sendall("\r\n".join([*lines, "", ""]).encode() + (made.body or b""))
        try:
            end = time.monotonic() + BOUND
            while time.monotonic() < end and (piece := sock.recv(1 << 16)):
                data += piece
                if b"\r\n\r\n" in data:
                    sock.settimeout(STREAM)
                    end = min(end, time.monotonic() + 5 * STREAM)
        except TimeoutError:
            if not data:
                return "no answer"
        except ConnectionResetError:
            return f"reset after {bytes(data[:200])!r}"
    status = data.split(b" ", 2)[1:2]
    if not data.startswith(b"HTTP/1.1 ") or not status[0].isdigit():
        return f"no HTTP: {bytes(data[:200])!r}"
    return "internal error" if b"internal error, see" in data else ""


def test_no_request_that_the_description_leads_to_is_a_fault(own: Host) -> None:
    description = Description(SEED)
    faults, count = [], 0
    for method, path in description.operations():
        if (method, path) in LEFT_OUT:
            continue
        restore(own)
        for _ in range(ASKS):
            made = description.made(method, path, NAMES)
            if path == "/containers/create":
                made = Made(method=method, path=made.path, body=without_the_host(made.body))
            count += 1
            if fault := said(own, made):
                faults.append((fault, made))
    print(f"HYPER_SEED={SEED}, {count} requests")
    assert faults == []
    log = own.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
    assert own.ping()
