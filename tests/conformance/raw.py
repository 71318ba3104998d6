"""The API without a client library: one request on a connection of its own."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from tests.framework.host import Host


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


def ask(host: Host, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Return status and answer, read as JSON if it is some."""
    connection = _Connection(str(host.socket))
    data = None if body is None else json.dumps(body)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    try:
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text


def connected(host: Host) -> socket.socket:
    """Return a connection to the daemon."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(str(host.socket))
    return sock
