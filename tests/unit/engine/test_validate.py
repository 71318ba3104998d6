from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.engine.validate import validate
from hyperstack.errors import HyperError, InvalidParameter, NotImplementedHere
from hyperstack.model import (
    ContainerConfig,
    DeviceMapping,
    EndpointSettings,
    Healthcheck,
    HostConfig,
    LogConfig,
    PortBinding,
    RestartPolicy,
)

MB = 1 << 20


def check(config: ContainerConfig | None = None, host: HostConfig | None = None) -> list[str]:
    return list(validate(config or ContainerConfig(), host or HostConfig(), {}))


def test_nothing_special_passes_without_a_warning() -> None:
    assert check() == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ContainerConfig(hostname="a b"), "invalid hostname"),
        (ContainerConfig(working_dir="here"), "it needs to be an absolute path"),
        (ContainerConfig(stop_signal="BOO"), "invalid signal: BOO"),
        (ContainerConfig(mac_address="02:42"), "02:42"),
        (ContainerConfig(env=("=x",)), "invalid environment variable: =x"),
        (ContainerConfig(exposed_ports=("0/tcp",)), "invalid port specification"),
        (ContainerConfig(exposed_ports=("90-80/tcp",)), "invalid port specification"),
        (ContainerConfig(exposed_ports=("80/xyz",)), "invalid port specification"),
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
        (HostConfig(memory=MB), "Minimum memory limit allowed is 6MB"),
        (HostConfig(memory=-1), "invalid memory limit|Minimum memory"),
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
        (HostConfig(devices=(DeviceMapping(path_on_host="/dev/x"),)), "--device"),
        (HostConfig(cpuset_cpus="0"), "--cpuset-cpus"),
        (HostConfig(cgroup_parent="/x"), "--cgroup-parent"),
        (HostConfig(links=("a:b",)), "--link"),
        (HostConfig(volume_driver="nfs"), "volume driver nfs"),
        (HostConfig(security_opt=("apparmor=mine",)), "apparmor=mine"),
        (HostConfig(security_opt=("wings",)), "invalid --security-opt"),
        (HostConfig(security_opt=("no-new-privileges:maybe",)), "invalid --security-opt"),
        (HostConfig(log_config=LogConfig(type="carrier-pigeon")), "carrier-pigeon"),
        (HostConfig(port_bindings={"80": (PortBinding(host_port="x"),)}), "invalid port"),
        (HostConfig(port_bindings={"80": (PortBinding(host_port="70000"),)}), "invalid port"),
    ],
)
def test_a_wrong_or_impossible_option_is_refused(host: HostConfig, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        check(host=host)


def test_a_log_driver_that_docker_has_and_we_have_not_is_named() -> None:
    with pytest.raises(NotImplementedHere, match="syslog"):
        check(host=HostConfig(log_config=LogConfig(type="syslog")))


def test_a_wrong_mac_address_of_an_endpoint_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="blue"):
        list(validate(ContainerConfig(), HostConfig(), {"blue": EndpointSettings(mac_address="x")}))


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(security_opt=("seccomp=unconfined", "label=disable", "apparmor=unconfined")),
        HostConfig(pid_mode="host", ipc_mode="shareable", cgroupns_mode="host"),
        HostConfig(memory=6 * MB, memory_swap=-1),
        HostConfig(port_bindings={"53/udp": (PortBinding(host_port="5000-5010"),)}),
        HostConfig(restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=3)),
    ],
)
def test_what_can_be_done_passes(host: HostConfig) -> None:
    assert check(host=host) == []


def test_what_is_discarded_is_warned_of() -> None:
    assert any("swappiness" in w for w in check(host=HostConfig(memory_swappiness=10)))


@given(st.text(max_size=20), st.text(max_size=12))
def test_ports_and_options_are_accepted_or_refused_and_nothing_else(port: str, option: str) -> None:
    with contextlib.suppress(HyperError):
        check(ContainerConfig(exposed_ports=(port,)), HostConfig(security_opt=(option,)))
