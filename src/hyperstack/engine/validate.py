"""What ``create`` refuses or warns of, before anything is made: Docker's checks and sentences.

Follows moby's ``daemon/container.go`` and ``daemon_unix.go``. Options that a virtual machine per
container cannot honour are refused here, never ignored.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping

from hyperstack.engine import devices, joining, resources, security
from hyperstack.engine.logging import drivers as log_drivers
from hyperstack.engine.stop import signal_number
from hyperstack.errors import InvalidParameter
from hyperstack.model import (
    ContainerConfig,
    EndpointSettings,
    Healthcheck,
    HostConfig,
)

_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")
_MAC = re.compile(
    r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}\Z|[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}\Z"
    r"|[0-9A-Fa-f]{4}(\.[0-9A-Fa-f]{4}){2}\Z"
)
_MILLISECOND = 1_000_000


def validate(
    config: ContainerConfig, host: HostConfig, networks: Mapping[str, EndpointSettings]
) -> tuple[HostConfig, list[str]]:
    """Check everything that needs no state; return what is in force, and Docker's warnings.

    Raises InvalidParameter, and InternalError where dockerd answers so.
    """
    _check_config(config)
    _check_health(config.healthcheck)
    _check_restart(host)
    joining.check(config, host)
    _check_refused(host)
    _check_ports(host)
    _check_rest(host)
    settled, warnings = resources.settle(host)
    log_drivers.check(host.log_config)
    for name, wish in networks.items():
        if wish.mac_address and not is_mac(wish.mac_address):
            raise InvalidParameter(
                f"invalid config for network {name}: invalid MAC address {wish.mac_address}"
            )
    warnings += [*security.check(host), *devices.warnings(host.devices), *_warnings(host)]
    return settled, warnings


def check_resources(host: HostConfig) -> tuple[HostConfig, list[str]]:
    """Check what an update is to change; return what of it is in force, and Docker's warnings.

    Raises InvalidParameter.
    """
    _check_restart(host)
    _check_swappiness(host)
    return resources.settle(host, update=True)


def is_mac(text: str) -> bool:
    """Tell whether *text* is a MAC address of six bytes, in one of the forms that Go reads."""
    return _MAC.match(text) is not None


def _check_config(config: ContainerConfig) -> None:
    if "\0" in config.hostname + config.domainname:
        raise InvalidParameter(f"invalid hostname: {config.hostname!r}")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute "
            "path"
        )
    if config.stop_signal:
        signal_number(config.stop_signal)
    if config.mac_address and not is_mac(config.mac_address):
        raise InvalidParameter(
            f"invalid config for network bridge: invalid MAC address {config.mac_address}"
        )
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
        negative = " and cannot be negative" if policy.maximum_retry_count < 0 else ""
        raise InvalidParameter(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
            + negative
        )
    if policy.maximum_retry_count < 0:
        raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")


def _check_refused(host: HostConfig) -> None:
    """Options that mean a part of the host that no virtual machine has."""
    if host.isolation.lower() not in ("", "default"):
        raise InvalidParameter(
            f"invalid isolation ({host.isolation}): linux only supports 'default'"
        )
    for key in host.annotations:
        if not key:
            raise InvalidParameter(
                "invalid Annotations: the empty string is not permitted as an annotation key"
            )
    for entry in host.extra_hosts:
        _check_extra_host(entry)


def _check_extra_host(entry: str) -> None:
    """Refuse what is no ``name:address`` (docker/cli, ``opts.ValidateExtraHost``)."""
    name, colon, address = entry.partition(":")
    if not colon or not name:
        raise InvalidParameter(f'bad format for add-host: "{entry}"')
    if address == "host-gateway":
        return
    try:
        ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        raise InvalidParameter(f'invalid IP address in add-host: "{address}"') from None


def _check_ports(host: HostConfig) -> None:
    """Refuse what can't be published (nat.ParsePort, nat.NewPort). Exposing is but a word."""
    for port, bindings in host.port_bindings.items():
        number, _, protocol = port.partition("/")
        if not _is_port(number) or not int(number):
            raise InvalidParameter(f'invalid port specification: "{number}"')
        if protocol not in ("", "tcp", "udp", "sctp"):
            raise InvalidParameter(f'invalid port specification: "{port}"')
        for binding in bindings:
            first, dash, last = binding.host_port.partition("/")[0].partition("-")
            known = all(map(_is_port, (first, last) if dash else (first or "0",)))
            if not known or (dash and int(first) > int(last)):
                raise InvalidParameter(f'invalid port specification: "{binding.host_port}"')


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536


def _check_swappiness(host: HostConfig) -> None:
    swappiness = host.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidParameter(
            f"Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )


def _check_rest(host: HostConfig) -> None:
    _check_swappiness(host)
    if host.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidParameter(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )


def _warnings(host: HostConfig) -> Iterator[str]:
    for bindings in host.port_bindings.values():
        for binding in bindings:
            if binding.host_port and host.network_mode == "host":
                yield "Published ports are discarded when using host network mode"
                return
