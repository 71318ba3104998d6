"""Shapes of answers: their keys and types, of the same things at any engine.

As a program it records those of a running dockerd with nothing but the image busybox:
``python -m tests.framework.shapes unix:///run/docker.sock 1.51 > shapes-1.51.json``
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

FURNITURE: tuple[tuple[str, ...], ...] = (
    ("run", "-d", "--name", "web", "--label", "a=b", "-p", "127.0.0.1:8080:80",
     "-v", "vol:/data", "-v", "/tmp:/host:ro", "--tmpfs", "/scratch",
     "--health-cmd", "true", "--health-interval", "1s", "busybox", "sleep", "1000"),
    ("create", "--name", "idle", "busybox", "true"),
    ("network", "create", "--subnet", "10.9.0.0/24", "--label", "n=1", "mine"),
    ("network", "connect", "--alias", "al", "mine", "web"),
)  # fmt: skip
"""Commands of the CLI that make the things whose shapes are of interest."""
SETTLING = 1.5
"""Seconds until the health check has run."""
PATHS = {
    "container": "/containers/web/json",
    "container_sized": "/containers/web/json?size=1",
    "container_idle": "/containers/idle/json",
    "containers": "/containers/json?size=1",
    "image": "/images/busybox/json",
    "images": "/images/json",
    "history": "/images/busybox/history",
    "network": "/networks/mine",
    "networks": "/networks",
    "volume": "/volumes/vol",
    "volumes": "/volumes",
    "info": "/info",
    "version": "/version",
    "top": "/containers/web/top",
    "changes": "/containers/web/changes",
    "df": "/system/df",
}
_BY_ID = frozenset({"Containers"})
"""Maps with ids for keys."""
_OPEN = frozenset({"GraphDriver", "Runtimes", "Components", "Containerd"})
"""What each engine has its own things in."""


def shape(value: Any, key: str = "") -> Any:
    """Return the shape of an answer: names of types, one element of lists, one of maps by id."""
    if key in _OPEN and value:
        return {} if isinstance(value, dict) else []
    if isinstance(value, dict):
        if key in _BY_ID:
            value = {"ID": next(iter(value.values()))} if value else {}
        return {name: shape(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None if value is None else type(value).__name__


def shapes(ask: Callable[[str], Any], version: str) -> dict[str, Any]:
    """Return the shapes of all answers. *ask* gets a path and returns what it answers."""
    found = {}
    for name, path in PATHS.items():
        answer = ask(f"/v{version}{path}")
        if name == "containers":
            answer = [one for one in answer if one["Names"] == ["/web"]]
        if name == "networks":
            answer = [one for one in answer if one["Name"] == "mine"]
        if name == "df":
            answer["Containers"] = [c for c in answer["Containers"] if c["Names"] == ["/web"]]
        for one in answer["Containers"] if name == "df" else _each(answer):
            if isinstance(one, dict) and "Mounts" in one:
                one["Mounts"].sort(key=lambda mount: mount["Type"], reverse=True)
        found[name] = shape(answer, "")
    return found


def _each(answer: Any) -> list[Any]:
    return answer if isinstance(answer, list) else [answer]


def _record(url: str, version: str) -> None:
    path = url.removeprefix("unix://")

    def ask(where: str) -> Any:
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(path)
        connection.request("GET", where)
        return json.loads(connection.getresponse().read())

    for command in FURNITURE:
        subprocess.run(["docker", "-H", url, *command], check=True, stdout=subprocess.DEVNULL)
    time.sleep(SETTLING)
    json.dump(shapes(ask, version), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    _record(*sys.argv[1:3])
