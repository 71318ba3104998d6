"""Requests of any shape: Docker's statuses, one sentence, never a traceback; large ones too.

The property test sends what hypothesis makes of a create body's fields; ``HYPER_FUZZ`` says how
many bodies.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from http.client import HTTPConnection
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.framework.host import Host
from tests.framework.trouble import inspect

MANY = int(os.environ.get("HYPER_FUZZ", "300"))
MiB = 1 << 20


class UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("d", timeout=60)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


def ask(host: Host, method: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Send one request; return status and body."""
    with contextlib.closing(UnixConnection(str(host.socket))) as connection:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, target, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


TEXT = st.text(max_size=12) | st.sampled_from(
    ["", "\0", "/", "..", "busybox", "host", "container:x", "-1", "80/tcp", "0-99999/udp", "\ud7ff",
     "a=b", "=", ":", "::", "/a:/b:ro", "bridge", "none", "1.5", "SIGKILL", "size=1g", "é" * 300]
)  # fmt: skip
LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.sampled_from([0, -1, 1, 1 << 31, 1 << 62, (1 << 63) - 1, -(1 << 63)])
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
ANY = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
TEXTS = st.lists(TEXT, max_size=3)
INTEGER = st.integers(-2, 1 << 40) | st.integers(-(1 << 63), (1 << 63) - 1)
MAP = st.dictionaries(TEXT, TEXT, max_size=3)
BINDING = st.fixed_dictionaries({}, optional={"HostIp": TEXT, "HostPort": TEXT})
MOUNT = st.fixed_dictionaries(
    {},
    optional={
        "Type": st.sampled_from(["bind", "volume", "tmpfs", "image", "npipe", "x"]),
        "Source": TEXT,
        "Target": TEXT,
        "ReadOnly": st.booleans(),
        "VolumeOptions": ANY,
        "TmpfsOptions": ANY,
        "BindOptions": ANY,
    },
)
CONFIG = {
    "Hostname": TEXT, "Domainname": TEXT, "User": TEXT, "AttachStdin": st.booleans(),
    "ExposedPorts": st.dictionaries(TEXT, st.just({}), max_size=3), "Tty": st.booleans(),
    "Env": TEXTS, "Cmd": TEXTS | TEXT, "Entrypoint": TEXTS | TEXT, "Healthcheck": ANY,
    "Volumes": st.dictionaries(TEXT, st.just({}), max_size=3), "WorkingDir": TEXT,
    "MacAddress": TEXT, "Labels": MAP, "StopSignal": TEXT, "StopTimeout": INTEGER, "Shell": TEXTS,
    "OnBuild": TEXTS,
}  # fmt: skip
HOST = {
    "Binds": TEXTS, "LogConfig": st.fixed_dictionaries({}, optional={"Type": TEXT, "Config": MAP}),
    "NetworkMode": TEXT, "PortBindings": st.dictionaries(TEXT, st.lists(BINDING, max_size=2)),
    "RestartPolicy": ANY, "AutoRemove": st.booleans(), "VolumesFrom": TEXTS,
    "Mounts": st.lists(MOUNT, max_size=2), "CapAdd": TEXTS, "CapDrop": TEXTS, "Dns": TEXTS,
    "DnsOptions": TEXTS, "DnsSearch": TEXTS, "ExtraHosts": TEXTS, "GroupAdd": TEXTS,
    "IpcMode": TEXT, "Links": TEXTS, "OomScoreAdj": INTEGER, "PidMode": TEXT, "UTSMode": TEXT,
    "SecurityOpt": TEXTS, "StorageOpt": MAP, "Tmpfs": MAP, "ShmSize": INTEGER, "Sysctls": MAP,
    "Runtime": TEXT, "ConsoleSize": ANY, "CpuShares": INTEGER, "Memory": INTEGER,
    "NanoCpus": INTEGER, "CpusetCpus": TEXT, "MemorySwap": INTEGER, "PidsLimit": INTEGER,
    "Ulimits": ANY, "Devices": ANY, "DeviceRequests": ANY, "MaskedPaths": TEXTS, "Init": ANY,
    "CgroupnsMode": TEXT, "BlkioWeight": INTEGER, "MemorySwappiness": INTEGER,
}  # fmt: skip
NETWORKING = st.fixed_dictionaries(
    {}, optional={"EndpointsConfig": st.dictionaries(TEXT, ANY, max_size=2) | ANY}
)


def few(fields: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Give some of the fields, each with a value of its kind or with anything at all."""
    one = st.sampled_from(sorted(fields)).flatmap(
        lambda name: st.tuples(st.just(name), st.one_of(fields[name], fields[name], ANY))
    )
    return st.lists(one, max_size=4).map(dict)


BODY = st.one_of(
    st.builds(
        lambda config, host, net: {"Image": "busybox", **config, "HostConfig": host, **net},
        few(CONFIG),
        few(HOST) | ANY,
        st.just({}) | NETWORKING.map(lambda value: {"NetworkingConfig": value}),
    ),
    ANY,
)


def refused_as_dockerd(status: int, answer: bytes) -> bool:
    """Tell whether a 500 is dockerd's for wrong input, with a sentence, and no defect's."""
    return status == 500 and b"see the daemon's log" not in answer


@settings(
    max_examples=MANY,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=BODY, name=TEXT)
def test_a_create_body_of_any_shape_is_answered(host: Host, body: Any, name: str) -> None:
    from urllib.parse import quote

    raw = json.dumps(body).encode()
    status, answer = ask(host, "POST", f"/containers/create?name={quote(name)}", raw)
    found = json.loads(answer)
    assert status in (201, 400, 404, 409, 501) or refused_as_dockerd(status, answer), answer
    if status == 201:
        identifier = found["Id"]
        assert ask(host, "GET", f"/containers/{identifier}/json")[0] == 200
        assert ask(host, "GET", "/containers/json?all=1")[0] == 200
        assert ask(host, "DELETE", f"/containers/{identifier}?v=1")[0] == 204
    else:
        assert found["message"]
        assert "\n  File" not in found["message"]


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/containers/create"),
        ("POST", "/networks/create"),
        ("POST", "/volumes/create"),
        ("POST", "/containers/x/update"),
        ("POST", "/containers/x/exec"),
        ("POST", "/exec/x/start"),
        ("POST", "/networks/bridge/connect"),
        ("POST", "/auth"),
    ],
)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b"7", b'"x"', b"\xff\xfe", b"[" * 100_000, b"{} {}"]
)
def test_a_body_that_is_no_object_is_answered(
    host: Host, method: str, target: str, body: bytes
) -> None:
    status, answer = ask(host, method, target, body)
    assert status in (200, 201, 400, 401, 403, 404, 500), (status, answer)
    assert status != 500 or b"internal error" not in answer
    if target == "/volumes/create" and status == 201:
        ask(host, "DELETE", f"/volumes/{json.loads(answer)['Name']}")


@pytest.mark.parametrize("target", [
    "/containers/json?limit=x", "/containers/json?filters=%7B", "/containers/json?filters=[1]",
    "/containers/x/logs?stdout=1&tail=x", "/containers/x/logs?since=y&stdout=1",
    "/containers/%00/json", "/containers/..%2f..%2fetc/json", "/images/json?filters=%22x%22",
    "/events?since=z", "/v9.99/info", "/v0.1/info", "/%ff%fe", "/containers/%ff/json",
    "/images/%F0%9F%98%80/json", "/containers/json?size=maybe", "/networks/%0a", "/volumes/a%20b",
])  # fmt: skip
def test_a_query_of_any_shape_is_answered(host: Host, target: str) -> None:
    status, answer = ask(host, "GET", target)
    assert status in (200, 301, 400, 404) or refused_as_dockerd(status, answer), answer


def test_a_large_environment_label_and_argument_arrive(host: Host) -> None:
    value = "v" * (100 << 10)
    host.docker("create", "--name", "large", "--label", f"l={value}", "busybox", "true")
    assert inspect(host, "large")["Config"]["Labels"]["l"] == value
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "echo ${#A} ${#B} $#", "x", *["y" * 100] * 2000],
        "Env": [f"A={'a' * 120_000}", f"B={'b' * 120_000}"],
        "Labels": {"big": "x" * MiB},
    }
    status, answer = ask(host, "POST", "/containers/create?name=args", json.dumps(body).encode())
    assert status == 201, answer
    assert host.docker("start", "-a", "args").out == "120000 120000 2000\n"


def test_an_argument_that_no_program_can_be_given_is_refused_with_a_sentence(host: Host) -> None:
    body = {"Image": "busybox", "Cmd": ["echo", "x" * MiB]}
    status, answer = ask(host, "POST", "/containers/create?name=long", json.dumps(body).encode())
    assert status == 201, answer
    done = host.docker("start", "-a", "long", check=False)
    assert done.code
    assert "argument list too long" in done.err.lower()


def test_output_that_is_not_text_arrives_as_it_is(host: Host) -> None:
    script = r"printf '\377\376\000\200x\r\n'; printf 'no end'"
    done = host.docker("run", "--name", "bytes", "busybox", "sh", "-c", script)
    assert done.out == b"\xff\xfe\x00\x80x\r\nno end".decode(errors="replace")
    assert "no end" in host.docker("logs", "bytes").out


def test_many_mounts_ports_and_labels_are_taken(host: Host) -> None:
    tmpfs = [word for i in range(60) for word in ("--tmpfs", f"/t{i}")]
    ports = [word for i in range(60) for word in ("-p", f"{9000 + i}:{i + 1}")]
    volumes = [word for i in range(60) for word in ("-v", f"/v{i}")]
    script = "grep -c ' /[tv][0-9]' /proc/mounts"
    done = host.docker("run", "--rm", *tmpfs, *ports, *volumes, "busybox", "sh", "-c", script)
    assert done.out == "120\n"


def test_what_the_guest_would_not_take_is_refused_with_a_sentence(host: Host) -> None:
    long = "/" + "x" * 5000
    for extra, words in (
        ({"WorkingDir": long}, "working directory"),
        ({"User": "u" * 300}, "user"),
        ({"HostConfig": {"Tmpfs": {long: ""}}}, "mount target"),
        ({"HostConfig": {"GroupAdd": ["7"] * 1500}}, "additional groups"),
    ):
        body = json.dumps({"Image": "busybox", "Cmd": ["true"], **extra}).encode()
        status, answer = ask(host, "POST", "/containers/create", body)
        if status == 201:
            status, answer = ask(host, "POST", f"/containers/{json.loads(answer)['Id']}/start")
        assert status == 400, (status, answer)
        assert words in json.loads(answer)["message"]
    host.docker("run", "-d", "--name", "execs", "busybox", "sleep", "1000")
    body = json.dumps({"Cmd": ["echo", "x" * MiB], "AttachStdout": True}).encode()
    status, answer = ask(host, "POST", "/containers/execs/exec", body)
    status, answer = ask(
        host, "POST", f"/exec/{json.loads(answer)['Id']}/start", b'{"Detach":true}'
    )
    assert status == 400
    assert "argument list too long" in json.loads(answer)["message"]
