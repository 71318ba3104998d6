"""The pages on endpoints and fields say all that API 1.51 has, and what they say is the case.

``tests/golden/api/description-1.51.json`` lists the paths and the fields of the API's description.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hyperstack.api.docker.routes import all_routes
from hyperstack.api.docker.schema.config import container_config
from hyperstack.api.docker.schema.create import CreateBody, read_create
from hyperstack.api.docker.schema.host import host_config
from hyperstack.engine import devices, wishes
from hyperstack.engine.validate import validate
from hyperstack.errors import HyperError
from hyperstack.model import EndpointSettings

ROOT = Path(__file__).parents[3]
DESCRIBED: dict[str, Any] = json.loads(
    (ROOT / "tests" / "golden" / "api" / "description-1.51.json").read_text()
)
VERDICTS = ("honoured", "dropped", "warned", "refused", "no effect", "ignored")

# What a client may send for each field; for those that are refused, something that dockerd takes.
EXAMPLES: dict[str, dict[str, Any]] = {
    "ContainerConfig": {
        "Hostname": "h", "Domainname": "d", "User": "u", "AttachStdin": True,
        "AttachStdout": True, "AttachStderr": True, "ExposedPorts": {"80/tcp": {}}, "Tty": True,
        "OpenStdin": True, "StdinOnce": True, "Env": ["A=1"], "Cmd": ["x"],
        "Healthcheck": {"Test": ["NONE"]}, "ArgsEscaped": True, "Image": "i", "Volumes": {"/v": {}},
        "WorkingDir": "/w", "Entrypoint": ["e"], "NetworkDisabled": True,
        "MacAddress": "02:42:00:00:00:01", "OnBuild": ["RUN x"], "Labels": {"a": "b"},
        "StopSignal": "USR1", "StopTimeout": 3, "Shell": ["sh"],
    },
    "HealthConfig": {
        "Test": ["CMD", "x"], "Interval": 10**9, "Timeout": 10**9, "Retries": 2,
        "StartPeriod": 10**9, "StartInterval": 10**9,
    },
    "HostConfig": {
        "Annotations": {"a": "b"}, "AutoRemove": True, "Binds": ["/a:/b"],
        "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1}],
        "BlkioDeviceReadIOps": [{"Path": "/dev/sda", "Rate": 1}],
        "BlkioDeviceWriteBps": [{"Path": "/dev/sda", "Rate": 1}],
        "BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 1}],
        "BlkioWeight": 300, "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 300}],
        "CapAdd": ["NET_ADMIN"], "CapDrop": ["KILL"], "Cgroup": "x", "CgroupParent": "/x",
        "CgroupnsMode": "host", "ConsoleSize": [24, 80], "ContainerIDFile": "/x", "CpuCount": 1,
        "CpuPercent": 5, "CpuPeriod": 50000, "CpuQuota": 25000, "CpuRealtimePeriod": 2000,
        "CpuRealtimeRuntime": 1000, "CpuShares": 512, "CpusetCpus": "0", "CpusetMems": "0",
        "DeviceCgroupRules": ["c 1:3 rwm"], "DeviceRequests": [{"Capabilities": [["gpu"]]}],
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/n",
                     "CgroupPermissions": "rwm"}],
        "Dns": ["1.1.1.1"], "DnsOptions": ["x"], "DnsSearch": ["x"], "ExtraHosts": ["a:1.2.3.4"],
        "GroupAdd": ["g"], "IOMaximumBandwidth": 1, "IOMaximumIOps": 1, "Init": True,
        "IpcMode": "host", "Isolation": "default", "KernelMemoryTCP": 1 << 30, "Links": ["a:b"],
        "LogConfig": {"Type": "local", "Config": {}}, "MaskedPaths": ["/x"], "Memory": 1 << 30,
        "MemoryReservation": 1 << 29, "MemorySwap": -1, "MemorySwappiness": 5,
        "Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b"}], "NanoCpus": 500_000_000,
        "NetworkMode": "none", "OomKillDisable": True, "OomScoreAdj": 5, "PidMode": "host",
        "PidsLimit": 5, "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "80"}]},
        "Privileged": True, "PublishAllPorts": True, "ReadonlyPaths": ["/x"],
        "ReadonlyRootfs": True, "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
        "Runtime": "hyper", "SecurityOpt": ["no-new-privileges"], "ShmSize": 1 << 20,
        "StorageOpt": {"size": "1G"}, "Sysctls": {"net.core.somaxconn": "5"}, "Tmpfs": {"/t": ""},
        "UTSMode": "host", "Ulimits": [{"Name": "nofile", "Hard": 5, "Soft": 5}],
        "UsernsMode": "host", "VolumeDriver": "local", "VolumesFrom": ["x"],
    },
    "NetworkingConfig": {"EndpointsConfig": {"net": {"Aliases": ["a"]}}},
    "EndpointSettings": {
        "IPAMConfig": {"IPv4Address": "10.0.0.1"}, "Links": ["a:b"],
        "MacAddress": "02:42:00:00:00:01", "Aliases": ["a"],
        "DriverOpts": {"com.docker.network.endpoint.ifname": "x0"}, "GwPriority": 5,
        "NetworkID": "x", "EndpointID": "x", "Gateway": "x", "IPAddress": "x", "IPPrefixLen": 5,
        "IPv6Gateway": "x", "GlobalIPv6Address": "x", "GlobalIPv6PrefixLen": 5, "DNSNames": ["x"],
    },
    "EndpointIPAMConfig": {
        "IPv4Address": "10.0.0.1", "IPv6Address": "fd00::1", "LinkLocalIPs": ["169.254.1.1"],
    },
}  # fmt: skip


def fields_page() -> dict[tuple[str, str], str]:
    """Return the verdict on each struct's field."""
    struct, found = "", {}
    for line in (ROOT / "docs" / "docker-api-fields.md").read_text().splitlines():
        if line.startswith("## "):
            struct = line.removeprefix("## ")
        elif struct and (row := re.match(r"\| `(\w+)` \| ([a-z ]+) \| ", line)):
            assert (struct, row[1]) not in found, "a field has two rows"
            found[struct, row[1]] = row[2]
    return found


PAGE = fields_page()


def test_every_endpoint_of_the_description_is_on_the_page_and_in_the_router() -> None:
    page = re.findall(
        r"^\| `([A-Z]+) (/\S*)` \| 1\.\d\d \| ",
        (ROOT / "docs" / "docker-api-endpoints.md").read_text(),
        re.MULTILINE,
    )
    described = [(m, path) for path, methods in DESCRIBED["paths"].items() for m in methods]
    assert sorted(page) == sorted(described)
    router = all_routes()
    for method, path in described:
        found = router.find(method, re.sub(r"{\w+}", "x", path))
        assert found is not None, (method, path)
        parameters = found[1]
        assert list(parameters.values()) == ["x"] * path.count("{"), (method, path)


def test_every_field_of_the_description_is_on_the_page() -> None:
    described = {(s, f) for s, fields in DESCRIBED["fields"].items() for f in fields}
    assert set(PAGE) == described
    assert set(PAGE.values()) == set(VERDICTS)
    assert {(s, f) for s, fields in EXAMPLES.items() for f in fields} == described


def body_with(struct: str, field: str) -> tuple[CreateBody, Any]:
    """Return a body that has one field of a struct, and the value that it was given."""
    value = EXAMPLES[struct][field]
    given: dict[str, Any] = {"Image": "x"}
    inner = {field: value}
    if struct == "ContainerConfig":
        given.update(inner)
    elif struct == "HealthConfig":
        given["Healthcheck"] = {"Test": ["CMD", "x"], **inner}
    elif struct == "HostConfig":
        given["HostConfig"] = inner
    elif struct == "NetworkingConfig":
        given["NetworkingConfig"] = inner
    else:
        wish = inner if struct == "EndpointSettings" else {"IPAMConfig": inner}
        given["NetworkingConfig"] = {"EndpointsConfig": {"net": wish}}
    return read_create(given), value


def outcome(body: CreateBody) -> tuple[dict[str, Any], list[str]]:
    """Return ``HostConfig`` as it shows then, and warnings. Raises HyperError."""
    host, warnings = validate(body.config, body.host, body.networks)
    devices.nodes(host)
    for name, wish in body.networks.items():
        wishes.check(None, name, wish)
    return host_config(host), warnings


@pytest.mark.parametrize(("struct", "field"), list(PAGE))
def test_a_field_comes_to_what_the_page_says(struct: str, field: str) -> None:
    verdict = PAGE[struct, field]
    body, given = body_with(struct, field)
    if verdict == "refused":
        with pytest.raises(HyperError):
            outcome(body)
        return
    shown, warnings = outcome(body)
    assert bool(warnings) == (verdict in ("dropped", "warned"))
    if struct == "HostConfig":
        kept = shown.get(field)
    elif struct == "ContainerConfig":
        kept = container_config(body.config)[field]
    elif struct == "HealthConfig":
        kept = container_config(body.config)["Healthcheck"][field]
    else:
        assert (body.networks["net"] == EndpointSettings()) == (verdict == "ignored")
        return
    assert (not kept) if verdict == "dropped" else (kept == given)
