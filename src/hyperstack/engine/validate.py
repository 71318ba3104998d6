"""What ``create`` refuses or warns of, before anything is made: Docker's checks and sentences.

Follows moby's ``daemon/container.go`` and ``daemon_unix.go``. Options that a virtual machine per
container cannot honour are refused here, never ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from hyperstack.engine import joining
from hyperstack.engine import logging as log_drivers
from hyperstack.engine.stop import signal_number
from hyperstack.errors import InvalidParameter
from hyperstack.model import ContainerConfig, EndpointSettings, Healthcheck, HostConfig

SMALLEST_MEMORY = 6 << 20
SMALLEST_RESERVATION = 6 << 20
_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?\Z")
_HOSTNAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,64}\Z")
"""As Docker: nothing but the kernel's length, and what would break a line of /etc/hosts."""
_MAC = re.compile(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\Z")
_MILLISECOND = 1_000_000


def validate(
    config: ContainerConfig, host: HostConfig, networks: Mapping[str, EndpointSettings]
) -> Iterator[str]:
    """Check everything that needs no state; yield Docker's warnings. Raises InvalidParameter."""
    _check_config(config)
    _check_health(config.healthcheck)
    _check_restart(host)
    joining.check(config, host)
    _check_refused(host)
    _check_ports(config, host)
    _check_memory(host)
    _check_cpu(host)
    log_drivers.check(host.log_config)
    for name, wish in networks.items():
        if wish.mac_address and not _MAC.match(wish.mac_address):
            raise InvalidParameter(f"invalid MAC address for network {name}: {wish.mac_address}")
    return _warnings(host)


def check_resources(host: HostConfig) -> None:
    """Check what an update may change. Raises InvalidParameter."""
    _check_restart(host)
    _check_memory(host)
    _check_cpu(host)


def _check_config(config: ContainerConfig) -> None:
    if config.hostname and not _HOSTNAME.match(config.hostname):
        raise InvalidParameter(f"invalid hostname: {config.hostname!r}")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute "
            "path"
        )
    if config.stop_signal:
        signal_number(config.stop_signal)
    if config.mac_address and not _MAC.match(config.mac_address):
        raise InvalidParameter(f"invalid MAC address: {config.mac_address}")
    for entry in config.env:
        if not entry or entry.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {entry}")


def _check_health(check: Healthcheck | None) -> None:
    if check is None:
        return
    for name, value in (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ):
        if value and value < _MILLISECOND:
            raise InvalidParameter(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")


def _check_restart(host: HostConfig) -> None:
    policy = host.restart_policy
    if policy.name not in _POLICIES:
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidParameter(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")


def _check_refused(host: HostConfig) -> None:
    """Options that mean a part of the host that no virtual machine has."""
    for given, what in (
        (host.devices, "--device: a virtual machine has none of the host's devices"),
        (host.device_cgroup_rules, "--device-cgroup-rule: the guest has no device controller"),
        (host.cpuset_cpus or host.cpuset_mems, "--cpuset-cpus and --cpuset-mems"),
        (host.cgroup_parent, "--cgroup-parent: the sandbox's cgroup is the engine's own"),
        (host.blkio_weight, "--blkio-weight"),
        (host.cpu_realtime_period or host.cpu_realtime_runtime, "real-time CPU limits"),
        (host.links, "--link: use a user-defined network"),
        (host.oom_kill_disable, "--oom-kill-disable"),
    ):
        if given:
            raise InvalidParameter(f"not supported by this engine: {what}")
    if host.isolation not in ("", "default"):
        raise InvalidParameter(
            f"Invalid isolation: \"{host.isolation}\" - linux only supports 'default'"
        )
    for request in host.device_requests:
        raise InvalidParameter(_no_device(request))
    for option in host.security_opt:
        _check_security(option)


def _no_device(request: Mapping[str, object]) -> str:
    """Word the refusal of ``--gpus`` as Docker does on a host without a fitting driver."""
    given = request.get("Capabilities")
    sets = [s for s in given if isinstance(s, list)] if isinstance(given, list) else []
    wanted = " ".join("[" + " ".join(map(str, names)) + "]" for names in sets)
    return (
        f'could not select device driver "{request.get("Driver") or ""}" with capabilities: '
        f"[{wanted}]: a virtual machine has none of the host's devices"
    )


def _check_security(option: str) -> None:
    name, separator, value = option.replace(":", "=", 1).partition("=")
    if name == "no-new-privileges":
        if value not in ("", "true", "false"):
            raise InvalidParameter(f"invalid --security-opt 2: {option!r}")
        return
    if name == "seccomp" and separator:
        return
    if name in ("label", "apparmor", "systempaths", "writable-cgroups") and separator:
        harmless = {"label": ("disable",), "apparmor": ("unconfined",)}
        if value in harmless.get(name, ()):
            return  # there is no such module in the guest: what was asked for is the case
        raise InvalidParameter(f"not supported by this engine: --security-opt {option}")
    raise InvalidParameter(f'invalid --security-opt 2: "{option}"')


def _check_ports(config: ContainerConfig, host: HostConfig) -> None:
    for port in (*config.exposed_ports, *host.port_bindings):
        match = _PORT.match(port)
        numbers = [int(n) for n in match.groups()[:2] if n] if match else []
        if not numbers or not all(0 < n < 65536 for n in numbers) or numbers != sorted(numbers):
            raise InvalidParameter(f'invalid port specification: "{port}"')
    for bindings in host.port_bindings.values():
        for binding in bindings:
            match = re.fullmatch(r"(\d{1,5})?(?:-(\d{1,5}))?", binding.host_port)
            if match is None or any(int(n) > 65535 for n in match.groups() if n):
                raise InvalidParameter(f'invalid port specification: "{binding.host_port}"')


def _check_memory(host: HostConfig) -> None:
    memory, swap = host.memory, host.memory_swap
    if memory < 0 or host.memory_reservation < 0:
        raise InvalidParameter("invalid memory limit: it cannot be negative")
    if memory and memory < SMALLEST_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if swap > 0 and not memory:
        raise InvalidParameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if 0 < swap < memory:
        raise InvalidParameter(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if host.memory_reservation and host.memory_reservation < SMALLEST_RESERVATION:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if memory and memory < host.memory_reservation:
        raise InvalidParameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise InvalidParameter(
            f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100"
        )
    if host.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidParameter(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )


def _check_cpu(host: HostConfig) -> None:
    cpus = os.cpu_count() or 1
    if host.nano_cpus and (host.cpu_period or host.cpu_quota):
        other = "CPU Period" if host.cpu_period else "CPU Quota"
        raise InvalidParameter(f"Conflicting options: Nano CPUs and {other} cannot both be set")
    if host.nano_cpus < 0 or host.nano_cpus > cpus * 1_000_000_000:
        raise InvalidParameter(
            f"Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )
    if host.cpu_shares < 0:
        raise InvalidParameter(
            f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer"
        )
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidParameter(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host.cpu_quota < 1000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")


def _warnings(host: HostConfig) -> Iterator[str]:
    if host.memory_swappiness is not None and host.memory_swappiness != -1:
        yield "Memory swappiness is discarded: the guest has no swap."
    for bindings in host.port_bindings.values():
        for binding in bindings:
            if binding.host_port and host.network_mode == "host":
                yield "Published ports are discarded when using host network mode"
                return
