from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.engine import resources
from hyperstack.engine.validate import validate
from hyperstack.errors import HyperError, InternalError, InvalidParameter
from hyperstack.model import (
    ContainerConfig,
    DeviceMapping,
    EndpointSettings,
    Healthcheck,
    HostConfig,
    LogConfig,
    PortBinding,
    RestartPolicy,
    ThrottleDevice,
    WeightDevice,
)

MB = 1 << 20


def check(config: ContainerConfig | None = None, host: HostConfig | None = None) -> list[str]:
    return validate(config or ContainerConfig(), host or HostConfig(), {})[1]


def test_nothing_special_passes_without_a_warning() -> None:
    assert check() == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ContainerConfig(hostname="a\0b"), "invalid hostname"),
        (ContainerConfig(working_dir="here"), "it needs to be an absolute path"),
        (ContainerConfig(stop_signal="BOO"), "invalid signal: BOO"),
        (ContainerConfig(mac_address="02:42"), "02:42"),
        (ContainerConfig(env=("=x",)), "invalid environment variable: =x"),
        (
            ContainerConfig(healthcheck=Healthcheck(test=("CMD", "x"), interval=10)),
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (
            ContainerConfig(healthcheck=Healthcheck(test=("CMD", "x"), retries=-1)),
            "Retries in Healthcheck cannot be negative",
        ),
    ],
)
def test_a_wrong_configuration_is_refused(config: ContainerConfig, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        check(config)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (HostConfig(restart_policy=RestartPolicy(name="often")), "unknown policy 'often'"),
        (
            HostConfig(restart_policy=RestartPolicy(name="always", maximum_retry_count=2)),
            "maximum retry count can",
        ),
        (
            HostConfig(restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=-2)),
            "cannot be negative",
        ),
        (
            HostConfig(auto_remove=True, restart_policy=RestartPolicy(name="always")),
            "can't create 'AutoRemove' container with restart policy",
        ),
        (HostConfig(ipc_mode="odd"), "odd"),
        (HostConfig(pid_mode="private"), "invalid PID mode: private"),
        (HostConfig(memory=MB), "Minimum memory limit allowed is 6MB"),
        (HostConfig(memory=-1), "Minimum memory limit allowed is 6MB"),
        (HostConfig(memory_swap=8 * MB), "always set the Memory limit"),
        (HostConfig(memory=8 * MB, memory_swap=7 * MB), "memoryswap limit should be larger"),
        (HostConfig(memory_reservation=MB), "Minimum memory reservation allowed is 6MB"),
        (HostConfig(memory=8 * MB, memory_reservation=9 * MB), "memory reservation limit"),
        (HostConfig(memory_swappiness=101), "valid memory swappiness range is 0-100"),
        (HostConfig(shm_size=-1), "SHM size can not be less than 0"),
        (HostConfig(oom_score_adj=1001), r"\[-1000, 1000\]"),
        (HostConfig(nano_cpus=10**9, cpu_period=10**5), "CPU Period cannot both be set"),
        (HostConfig(nano_cpus=10**9, cpu_quota=10**5), "CPU Quota cannot both be set"),
        (HostConfig(nano_cpus=((os.cpu_count() or 1) + 1) * 10**9), "CPUs available"),
        (HostConfig(cpu_shares=-1), "invalid CPU shares"),
        (HostConfig(cpu_period=10), "CPU cfs period can not be less than 1ms"),
        (HostConfig(cpu_quota=10), "CPU cfs quota can not be less than 1ms"),
        (HostConfig(cpuset_cpus="x"), "Invalid value x for cpuset cpus: invalid format: x"),
        (HostConfig(cpuset_cpus="0-"), "Invalid value 0- for cpuset cpus"),
        (HostConfig(cpuset_mems="1-0"), "Invalid value 1-0 for cpuset mems"),
        (HostConfig(cpuset_cpus="8000"), "Requested CPUs are not available - requested 8000"),
        (HostConfig(io_maximum_iops=1), "QoS maximum IOPs configuration is not supported"),
        (HostConfig(io_maximum_bandwidth=1), "QoS maximum bandwidth configuration"),
        (HostConfig(isolation="hyperv"), r"invalid isolation \(hyperv\): linux only supports"),
        (HostConfig(annotations={"": "x"}), "the empty string is not permitted"),
        (HostConfig(extra_hosts=("a",)), 'bad format for add-host: "a"'),
        (HostConfig(extra_hosts=("a:b",)), 'invalid IP address in add-host: "b"'),
        (HostConfig(log_config=LogConfig(type="carrier-pigeon")), "carrier-pigeon"),
        (HostConfig(port_bindings={"80": (PortBinding(host_port="x"),)}), "invalid port"),
        (HostConfig(port_bindings={"80": (PortBinding(host_port="70000"),)}), "invalid port"),
        (HostConfig(port_bindings={"80": (PortBinding(host_port="9-8"),)}), "invalid port"),
        (HostConfig(port_bindings={"80-81/tcp": ()}), 'port specification: "80-81"'),
        (HostConfig(port_bindings={"80/xyz": ()}), "invalid port"),
    ],
)
def test_a_wrong_or_impossible_option_is_refused(host: HostConfig, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        check(host=host)


def test_a_wrong_mac_address_of_an_endpoint_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="blue"):
        validate(ContainerConfig(), HostConfig(), {"blue": EndpointSettings(mac_address="x")})


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(security_opt=("seccomp=unconfined", "label=disable", "apparmor=unconfined")),
        HostConfig(pid_mode="host", ipc_mode="shareable", cgroupns_mode="host"),
        HostConfig(memory=6 * MB, memory_swap=-1),
        HostConfig(port_bindings={"53/udp": (PortBinding(host_port="5000-5010"),)}),
        HostConfig(restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=3)),
        HostConfig(cpuset_cpus="0", cpuset_mems="0"),
        HostConfig(devices=(DeviceMapping(path_on_host="/dev/null", cgroup_permissions="rwm"),)),
        HostConfig(extra_hosts=("a:1.2.3.4", "b:::1", "d:host-gateway")),
        HostConfig(isolation="Default", userns_mode="host"),
        HostConfig(oom_kill_disable=False, memory_swappiness=-1, pids_limit=-1),
    ],
)
def test_what_can_be_done_passes(host: HostConfig) -> None:
    assert check(host=host) == []


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (HostConfig(memory_swappiness=10), "memory swappiness capabilities"),
        (HostConfig(oom_kill_disable=True), "OomKillDisable discarded"),
        (HostConfig(blkio_weight=300), "Block I/O weight or the cgroup"),
        (HostConfig(blkio_weight_device=(WeightDevice(path="/dev/x", weight=9),)), "weight_device"),
        (HostConfig(blkio_device_read_bps=(ThrottleDevice(rate=1),)), "BPS Block I/O read limit"),
        (HostConfig(blkio_device_write_iops=(ThrottleDevice(rate=1),)), "IOPS Block write limit"),
        (HostConfig(kernel_memory=1 << 30), "kernel memory limit capabilities"),
        (HostConfig(kernel_memory_tcp=1 << 30), "kernel memory TCP limit"),
        (HostConfig(cpu_percent=3), "linux does not support CPU percent. Percent discarded."),
        (HostConfig(cpu_realtime_period=1000), "CPU real-time scheduler"),
        (HostConfig(security_opt=("apparmor=mine",)), "Profile mine discarded"),
        (HostConfig(security_opt=("label=type:x",)), "Label type:x discarded"),
        (
            HostConfig(devices=(DeviceMapping(path_on_host="/dev/null", cgroup_permissions="r"),)),
            "no device controller",
        ),
    ],
)
def test_what_is_discarded_is_warned_of(
    host: HostConfig, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "limits_devices", lambda: False)
    (warning,) = check(host=host)
    assert words in warning


def test_limits_of_devices_stay_where_the_host_can_keep_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resources, "limits_devices", lambda: True)
    wish = HostConfig(blkio_device_read_bps=(ThrottleDevice(path="/dev/x", rate=1),))
    assert validate(ContainerConfig(), wish, {}) == (wish, [])


def test_what_is_discarded_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "limits_devices", lambda: False)
    wild = HostConfig(
        memory_swappiness=10,
        oom_kill_disable=False,
        blkio_weight=300,
        blkio_device_read_bps=(ThrottleDevice(rate=1),),
        kernel_memory=1 << 30,
        cpu_percent=3,
        pids_limit=0,
    )
    shown_empty = HostConfig(given_empty=("blkio_device_read_bps",))
    assert validate(ContainerConfig(), wild, {})[0] == shown_empty


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("wings", 'invalid --security-opt 1: "wings"'),
        ("wings=2", 'invalid --security-opt 2: "wings=2"'),
        ("systempaths=unconfined", "invalid --security-opt 2"),
        ("no-new-privileges:maybe", 'invalid --security-opt 2: "no-new-privileges:maybe"'),
    ],
)
def test_what_is_no_security_option_is_refused_as_dockerd_refuses_it(
    option: str, words: str
) -> None:
    with pytest.raises(InternalError, match=words):
        check(host=HostConfig(security_opt=(option,)))


@given(st.text(max_size=20), st.text(max_size=12))
def test_ports_and_options_are_accepted_or_refused_and_nothing_else(port: str, option: str) -> None:
    with contextlib.suppress(HyperError):
        check(ContainerConfig(exposed_ports=(port,)), HostConfig(security_opt=(option,)))
