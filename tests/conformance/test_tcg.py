"""One whole life of a container under QEMU, as ``docker run --runtime hyper-tcg`` gives it.

Software emulation works on every host, so it is what proves the QEMU driver where there is no KVM.
A boot takes seconds: one container sees everything.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperstack.guest.kit import Kit
from tests.framework.host import KIT_DIR, Host, running_host
from tests.framework.images import busybox_tar

RUN = ("run", "--runtime", "hyper-tcg")
BOUND = 60.0
SERVER = (
    "trap 'echo stopping; exit 5' TERM; httpd -p 80 -h /data; echo up; while :; do sleep 0.2; done"
)


FETCH = """busybox wget -qO- http://127.0.0.1:{port}/page & wget=$!
for i in $(seq 250); do kill -0 $wget 2>/dev/null || {{ wait $wget; exit; }}; sleep 0.1; done
ss -tanpo; ip neigh; bridge fdb; ip -s link; nft list ruleset; kill $wget; exit 9"""


@pytest.fixture(autouse=True)
def _has_qemu() -> None:
    if not Kit.load(KIT_DIR / "current").has_qemu:
        pytest.skip("the guest kit has no QEMU")


@pytest.fixture
def emulating(tmp_path: Path, worker_number: int) -> Iterator[Host]:
    """A daemon of this test's own, with nothing of other tests in its network."""
    with running_host(tmp_path / "h", worker_number + 20) as host:
        host.docker("import", "--change", 'CMD ["sh"]', "-", "busybox", stdin=busybox_tar())
        yield host
        host.remove_everything()


def _inspect(host: Host, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.docker("inspect", name).out)[0]
    return found


def _fetch(host: Host, port: int) -> str:
    got = host.inside("sh", "-c", FETCH.format(port=port))
    assert got.code == 0, f"{got}\n{_plight(host)}"
    return got.out


def _plight(host: Host) -> str:
    """Say where a connection hangs: on the host, in the guest's network, or in its server."""
    inner = "netstat -tn; ps; for p in /proc/[0-9]*; do echo $p $(cat $p/wchan $p/comm); done"
    seen = (host.docker("exec", "life", "sh", "-c", inner, check=False),)
    return "\n".join(f"{result.out}{result.err}" for result in seen)


def _until(what: str, done: Any) -> None:
    bound = time.monotonic() + BOUND
    while not done():
        assert time.monotonic() < bound, what
        time.sleep(0.1)


def test_a_container_lives_a_whole_life_in_an_emulated_machine(
    emulating: Host, tmp_path: Path
) -> None:
    host = emulating
    host.docker("volume", "create", "pages")
    host.docker(*RUN, "-d", "--name", "life", "-p", "18081:80", "-v", "pages:/data", "--memory",
                "128m", "busybox", "sh", "-c", SERVER)  # fmt: skip
    _until("the server is up", lambda: host.docker("logs", "life").out == "up\n")

    # exec, cp, the volume and the published port.
    assert " x86_64 " in host.docker("exec", "life", "uname", "-a").out
    (tmp_path / "page").write_text("served by an emulated machine\n")
    host.docker("cp", str(tmp_path / "page"), "life:/data/page")
    assert _fetch(host, 18081) == "served by an emulated machine\n"
    host.docker("exec", "life", "sh", "-c", "echo kept > /file; hostname > /data/page")
    host.docker("cp", "life:/file", str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "kept\n"
    name = _inspect(host, "life")["Config"]["Hostname"]
    assert _fetch(host, 18081) == f"{name}\n"
    volume = _inspect(host, "life")["Mounts"][0]["Source"]
    assert (Path(volume) / "page").read_text() == f"{name}\n"
    host.docker("pause", "life")
    host.docker("unpause", "life")

    # The next daemon finds it as it was.
    pid = _inspect(host, "life")["State"]["Pid"]
    host.kill()
    host.start()
    assert _inspect(host, "life")["State"]["Pid"] == pid
    assert host.docker("exec", "life", "cat", "/file").out == "kept\n"
    assert _fetch(host, 18081) == f"{name}\n"

    host.docker("stop", "-t", "30", "life")
    assert _inspect(host, "life")["State"]["ExitCode"] == 5
    assert host.docker("logs", "life").out == "up\nstopping\n"

    # Its disk is there for the next start; killing its machine is killing the container.
    host.docker("start", "life")
    assert host.docker("exec", "life", "cat", "/file").out == "kept\n"
    state = _inspect(host, "life")["State"]
    assert "qemu" in Path(f"/proc/{state['Pid']}/comm").read_text()
    os.kill(state["Pid"], signal.SIGKILL)
    assert host.docker("wait", "life").out == "137\n"
    host.docker("rm", "life")
    host.docker("volume", "rm", "pages")


def test_who_joins_an_emulated_machine_brings_volumes_along(
    emulating: Host, tmp_path: Path
) -> None:
    """Its machine was started without any: its share is plugged in while it runs."""
    host = emulating
    host.docker(*RUN, "-d", "--name", "bare", "--network", "none", "busybox", "sleep", "1000")
    (tmp_path / "f").write_text("the host's\n")
    script = "cat /b/f; echo back > /v/f; cat /v/f; touch /b/new"
    joining = ("run", "--rm", "--network", "container:bare", "-v", f"{tmp_path}:/b:ro")
    for _ in range(2):
        done = host.docker(*joining, "-v", "joined:/v", "busybox", "sh", "-c", script, check=False)
        assert done.out == "the host's\nback\n"
        assert "Read-only file system" in done.err
    assert host.docker("exec", "bare", "echo", "alive").out == "alive\n"
    host.docker("rm", "-f", "bare")
    host.docker("volume", "rm", "joined")
