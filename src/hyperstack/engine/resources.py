"""Limits of ``HostConfig``: what is refused, and what is dropped with a warning.

Follows moby's ``verifyPlatformContainerResources`` (``daemon/daemon_unix.go``), of which this
engine is a host that has cgroup version 2: the guest's kernel keeps memory and processes, the
sandbox's cgroup on the host CPU time, shares, CPU sets and the throughput of the host's devices
(of which a guest's disks are files). What a guest's kernel, or the host's, has no support for is
dropped with the sentence with which Docker drops it there.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from hyperstack.errors import InvalidParameter
from hyperstack.model import HostConfig
from hyperstack.platform.cgroup import Cgroups

SMALLEST_MEMORY = 6 << 20
_NO_KERNEL = "Your kernel does not support {} or the cgroup is not mounted. {} discarded."
_THROTTLES = (
    ("blkio_device_read_bps", "BPS Block I/O read limit", "Block I/O BPS read limit"),
    ("blkio_device_write_bps", "BPS Block I/O write limit", "Block I/O BPS write limit"),
    ("blkio_device_read_iops", "IOPS Block read limit", "Block I/O IOPS read limit"),
    ("blkio_device_write_iops", "IOPS Block write limit", "Block I/O IOPS write limit"),
)


def settle(host: HostConfig, *, update: bool = False) -> tuple[HostConfig, list[str]]:
    """Return what of *host* is in force, and Docker's warnings. Raises InvalidParameter.

    *update*: what *host* does not say is set already, and may be anything.
    """
    changes: dict[str, Any] = {}
    warnings = [
        *_memory(host, changes, update),
        *_cpu(host, changes),
        *_block(host, changes),
        *_groups(host),
    ]
    check_sets(host)
    return msgspec.structs.replace(host, **changes), warnings


def _memory(host: HostConfig, changes: dict[str, Any], update: bool) -> Iterator[str]:
    _check_memory(host, update)
    # Of guests, all are on cgroup version 2, which has no swappiness of its own.
    if host.memory_swappiness is not None:
        if host.memory_swappiness != -1:
            yield _NO_KERNEL.format("memory swappiness capabilities", "Memory swappiness")
        changes["memory_swappiness"] = None
    if host.kernel_memory > 0:
        yield _NO_KERNEL.format("kernel memory limit capabilities", "Limitation")
    if host.kernel_memory_tcp > 0:
        yield _NO_KERNEL.format("kernel memory TCP limit", "Limitation")
    changes["kernel_memory"] = changes["kernel_memory_tcp"] = 0
    if host.oom_kill_disable is not None:
        if host.oom_kill_disable:
            yield "Your kernel does not support OomKillDisable. OomKillDisable discarded."
        changes["oom_kill_disable"] = None
    if host.pids_limit is not None and host.pids_limit <= 0:
        changes["pids_limit"] = None  # what the CLI sends for "not said"


def _check_memory(host: HostConfig, update: bool) -> None:
    memory, swap, reserved = host.memory, host.memory_swap, host.memory_reservation
    if memory and memory < SMALLEST_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if 0 < swap < memory:
        raise InvalidParameter(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if swap > 0 and not memory and not update:
        raise InvalidParameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if 0 < reserved < SMALLEST_MEMORY:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if 0 < memory < reserved:
        raise InvalidParameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )


def _cpu(host: HostConfig, changes: dict[str, Any]) -> Iterator[str]:
    cpus = os.cpu_count() or 1
    for other, name in ((host.cpu_period, "CPU Period"), (host.cpu_quota, "CPU Quota")):
        if host.nano_cpus > 0 and other > 0:
            raise InvalidParameter(f"Conflicting options: Nano CPUs and {name} cannot both be set")
    if not 0 <= host.nano_cpus <= cpus * 1_000_000_000:
        raise InvalidParameter(
            f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
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
    if host.cpu_percent > 0:
        yield "linux does not support CPU percent. Percent discarded."
        changes["cpu_percent"] = 0
    if host.cpu_realtime_period or host.cpu_realtime_runtime:
        if host.cpu_realtime_runtime > host.cpu_realtime_period > 0:
            raise InvalidParameter(
                "cpu real-time runtime cannot be higher than cpu real-time period"
            )
        yield _NO_KERNEL.format("CPU real-time scheduler", "Real-time limits")
        changes["cpu_realtime_period"] = changes["cpu_realtime_runtime"] = 0


def _groups(host: HostConfig) -> Iterator[str]:
    if host.cgroup_parent:
        yield (
            f"The sandbox's cgroup is the engine's own. Cgroup parent {host.cgroup_parent} is not "
            "used."
        )


def _block(host: HostConfig, changes: dict[str, Any]) -> Iterator[str]:
    """Devices are the host's, where a guest's disks are files. Nothing weighs them."""
    dropped: list[str] = []
    if host.io_maximum_bandwidth:
        raise InvalidParameter(
            "invalid option: QoS maximum bandwidth configuration is not supported on linux"
        )
    if host.io_maximum_iops:
        raise InvalidParameter(
            "invalid option: QoS maximum IOPs configuration is not supported on linux"
        )
    if host.blkio_weight:
        yield _NO_KERNEL.format("Block I/O weight", "Weight")
        changes["blkio_weight"] = 0
    if host.blkio_weight_device:
        yield _NO_KERNEL.format("Block I/O weight_device", "Weight-device")
        changes["blkio_weight_device"] = ()
        dropped.append("blkio_weight_device")
    for name, limit, what in _THROTTLES:
        if getattr(host, name) and not limits_devices():
            yield _NO_KERNEL.format(limit, what)
            changes[name] = ()
            dropped.append(name)
    if dropped:  # shown as empty lists then
        changes["given_empty"] = (*host.given_empty, *dropped)


@functools.cache
def limits_devices() -> bool:
    """Tell whether this host's cgroups can limit its block devices."""
    return Cgroups.detect().limits_devices


def check_sets(host: HostConfig) -> None:
    """Refuse CPUs and memory nodes that this host has not. Raises InvalidParameter."""
    for text, kind, what, there in (
        (host.cpuset_cpus, "cpus", "CPUs", "/sys/devices/system/cpu/online"),
        (host.cpuset_mems, "mems", "memory nodes", "/sys/devices/system/node/online"),
    ):
        if not text:
            continue
        try:
            wanted = numbers(text)
        except ValueError as error:
            raise InvalidParameter(f"Invalid value {text} for cpuset {kind}: {error}") from None
        available = _online(there)
        if not wanted <= numbers(available):
            raise InvalidParameter(
                f"Requested {what} are not available - requested {text}, available: {available}"
            )


def _online(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "0"  # a host without NUMA


MOST_NUMBER = 8192
"""The highest number that moby takes for a CPU; Linux can't be built for more."""


def numbers(text: str) -> set[int]:
    """Read a list like ``0-3,7`` (cpuset(7)). Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        words = (first, last) if dash else (first,)
        if not all(word.isascii() and word.isdigit() and len(word) < 12 for word in words):
            raise ValueError(f"invalid format: {text}")
        low, high = int(first), int(last or first)
        if low > high:
            raise ValueError(f"invalid format: {text}")
        if high > MOST_NUMBER:
            raise ValueError(f"value of out range, maximum is {MOST_NUMBER}")
        found.update(range(low, high + 1))
    return found
