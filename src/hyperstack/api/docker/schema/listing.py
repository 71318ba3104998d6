"""``GET /containers/json``: one line of ``docker ps`` each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from hyperstack.api.docker.gotime import human_duration
from hyperstack.api.docker.schema.endpoint import networks_listed
from hyperstack.api.docker.schema.inspect import ports
from hyperstack.api.docker.schema.mounts import mount_point
from hyperstack.model import Container, Status

NS = 1_000_000_000


def container_summary(
    container: Container,
    *,
    image: str,
    names: Sequence[str] = (),
    sizes: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Return a container as lists show it.

    *image* is its reference or, if that moved, its id; *names* are those that links give it.
    """
    made: dict[str, Any] = {
        "Id": container.id,
        "Names": [f"/{container.name}", *names],
        "Image": image,
        "ImageID": container.image_id,
        "Command": _command(container),
        "Created": container.created_ns // NS,
        "Ports": port_list(container),
    }
    if sizes is not None:
        if sizes[0]:
            made["SizeRw"] = sizes[0]
        made["SizeRootFs"] = sizes[1]
    host: dict[str, Any] = {"NetworkMode": container.host.network_mode}
    if container.host.annotations:
        host["Annotations"] = dict(sorted(container.host.annotations.items()))
    return {
        **made,
        "Labels": dict(sorted(container.config.labels.items())),
        "State": container.state.status.value,
        "Status": status(container, time.time()),
        "HostConfig": host,
        "NetworkSettings": {"Networks": networks_listed(container)},
        "Mounts": [mount_point(mount) for mount in container.mounts],
    }


def _command(container: Container) -> str:
    """Join path and arguments; arguments with blanks are quoted, as Docker does."""
    arguments = [f"'{arg}'" if " " in arg else arg for arg in container.args]
    return " ".join((container.path, *arguments))


def port_list(container: Container) -> list[dict[str, Any]]:
    """Return ``Ports``: one entry for each binding, and one for each exposed port without any."""
    made: list[dict[str, Any]] = []
    for port, bindings in ports(container).items():
        number, _, protocol = port.partition("/")
        if not number.isdigit():
            continue
        entry = {"PrivatePort": int(number), "Type": protocol or "tcp"}
        if not bindings:
            made.append(entry)
        for binding in bindings or ():
            host_port = binding["HostPort"]
            made.append(
                {
                    "IP": binding["HostIp"],
                    "PrivatePort": int(number),
                    "PublicPort": int(host_port) if host_port.isdigit() else 0,
                    "Type": protocol or "tcp",
                }
            )
    return made


def status(container: Container, now: float) -> str:
    """Return the words of the STATUS column."""
    state = container.state
    if state.status is Status.REMOVING:
        return "Removal In Progress"
    if state.status is Status.DEAD:
        return "Dead"
    if state.status is Status.CREATED or not state.started_ns:
        return "Created"
    ago = human_duration(now - state.finished_ns / NS)
    if state.status is Status.RESTARTING:
        return f"Restarting ({state.exit_code}) {ago} ago"
    if state.status is Status.EXITED:
        return f"Exited ({state.exit_code}) {ago} ago"
    up = f"Up {human_duration(now - state.started_ns / NS)}"
    if state.status is Status.PAUSED:
        return f"{up} (Paused)"
    if state.health is not None and state.health.status != "none":
        shown = state.health.status
        return f"{up} ({'health: starting' if shown == 'starting' else shown})"
    return up
