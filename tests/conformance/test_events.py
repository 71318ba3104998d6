"""Events of the same actions here and at a real dockerd: types, actions, attributes and order.

The order is that of dockerd 28. An older one, as distributions have it, tells some things
otherwise; ``_common`` says which, and leaves them out on both sides.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.framework.host import DOCKER, Host
from tests.framework.images import busybox_tar
from tests.framework.reference import Reference, running_reference

pytestmark = pytest.mark.xdist_group("side by side")

SCRIPTS = {
    "life": """
        q create --name one -l a=b busybox sh -c 'exit 3'; q start one; q wait one; q rm one
        q run -d --name two -v vol:/v:ro busybox sleep 100; q stop -t 0 two; q start two
        q restart -t 0 two; q kill -s USR1 two; q pause two; q stop -t 1 two; q start two
        q pause two; q kill two; q rename two three; q rm three; q volume rm vol
        q run --rm --name four busybox true; sleep 0.3
        q run -d --rm --name five busybox sleep 100; q stop -t 0 five; sleep 0.3
        """,
    "work in a container": """
        q run -d -t --name one busybox sh; q top one; q update --cpu-shares 9 one; q diff one
        q exec one true; q exec -d one sh -c true; sleep 0.5; q exec one nosuch
        echo x > x; q cp x one:/x; q cp one:/x y; q export one; q commit one made:1; q rmi made:1
        q rm -f one; q run -d --name two --health-cmd true --health-interval 300ms busybox sleep 100
        sleep 1; q rm -f two; q create -i --name three busybox cat; echo hi | q start -ai three
        q rm three; q run --name four busybox nosuch; q rm four
        """,
    "images, networks, volumes": """
        q tag busybox x/y:1; q rmi x/y:1; q save -o s.tar busybox; q load -i s.tar
        q volume create v1; q volume create v1; q volume rm v1; q volume prune -f
        q network create n1; q network create -d bridge -o com.docker.network.bridge.name=br-ev n2
        q run -d --name one --network n1 busybox sleep 100; q network connect n2 one
        q network disconnect n2 one; q rm -f one; q network rm n1; q network prune -f
        q container prune -f; q image prune -f
        """,
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    with running_reference(tmp_path_factory.mktemp("dockerd")) as running:
        running.docker(
            "import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar()
        )
        yield running


def _events(script: str, url: str, folder: Path) -> list[dict[str, Any]]:
    """Run a script, ``q`` being the silent CLI, and return what it made the daemon tell."""
    folder.mkdir()
    began = time.time()
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
    head = f'q() {{ timeout 60 {DOCKER} -H {url} "$@" > out 2>&1; return 0; }}\n'
    subprocess.run(
        ["bash", "-c", head + script], cwd=folder, stdin=subprocess.DEVNULL, timeout=180, env=env
    )
    span = ["--since", f"{began:.9f}", "--until", f"{time.time():.9f}", "--format", "{{json .}}"]
    told = subprocess.run(
        [DOCKER, "-H", url, "events", *span], capture_output=True, timeout=60, check=True
    )
    return [json.loads(line) for line in told.stdout.splitlines()]


def _masked(events: list[dict[str, Any]]) -> list[str]:
    """Return each event in one line, with ids by their first appearance and without times."""
    ids: dict[str, str] = {}
    lines = []
    for event in events:
        if event["Type"] == "container" and "exec_" in event["Action"] and "two" in str(event):
            continue  # of a health check: how many there are is a matter of time
        attributes = dict(event["Actor"]["Attributes"])
        assert event["timeNano"] // 10**9 == event["time"]
        assert event["scope"] == "local"
        attributes.pop("execDuration", None)
        for key, value in attributes.items():
            if len(value.removeprefix("sha256:")) == 64:
                attributes[key] = ids.setdefault(value, f"<{len(ids)}>")
        actor = event["Actor"]["ID"]
        if len(actor.removeprefix("sha256:")) == 64:
            actor = ids.setdefault(actor, f"<{len(ids)}>")
        legacy = [key for key in ("status", "id", "from") if key in event]
        lines.append(f"{event['Type']} {event['Action']} {actor} {attributes} {legacy}")
    return lines


_MOVED = ("connect", "disconnect", "mount", "unmount", "stop", "prune", "unpause")
_OLD = (("image", "create"), ("network", "destroy"), ("volume", "create"))


def _common(lines: list[str]) -> list[str]:
    """Return what dockerd has told alike from 20.10 to 28, in an order that does not depend on it.

    28 tells ``die`` after the networks, the volumes and ``stop``, and mounts before networks; it
    tells of no connection of a container that did not start, but of its mounts; of an image that
    ``commit`` made, but not of networks that ``prune`` takes nor of a volume that was there; and an
    event without an actor has no ``id``. The kill of a paused container comes before its thaw.
    """
    kept = []
    for line in lines:
        kind, action = line.split(" ")[:2]
        if kind in ("network", "volume") and action in (
            "connect",
            "disconnect",
            "mount",
            "unmount",
        ):
            continue
        if (kind, action) in _OLD or action in ("stop", "prune", "unpause"):
            continue
        kept.append(line)
    return kept


@pytest.mark.parametrize("name", list(SCRIPTS))
def test_the_same_actions_are_told_of_here_as_at_dockerd(
    host: Host, reference: Reference, tmp_path: Path, name: str
) -> None:
    for engine in (reference, host):
        engine.docker("image", "prune", "-f")  # what others left would be told of
    try:
        theirs = _masked(_events(SCRIPTS[name], reference.url, tmp_path / "docker"))
        ours = _masked(_events(SCRIPTS[name], host.url, tmp_path / "hyper"))
    finally:
        for engine in (reference, host):
            engine.remove_everything()
    version = reference.docker("version", "--format", "{{.Server.Version}}").out
    if int(version.partition(".")[0]) < 28:
        theirs, ours = _common(theirs), _common(ours)
    assert ours == theirs
    assert len(ours) > 8
