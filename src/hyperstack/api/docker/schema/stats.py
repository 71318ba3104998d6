"""``GET /containers/{id}/stats``: counters, in the shape that dockerd has on cgroup v2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hyperstack.api.docker.gotime import ZERO, rfc3339nano
from hyperstack.engine.stats import ContainerStats
from hyperstack.guest.messages import Stats

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_BLKIO = (
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)


def system_cpu_ns() -> int:
    """Return the host's CPU time since boot in ns: what clients hold a container's against."""
    with Path("/proc/stat").open("rb") as file:
        fields = file.readline().split()[1:8]
    return sum(int(field) for field in fields) * _TICK_NS


def container_stats(
    sample: ContainerStats, *, system_ns: int, previous_system_ns: int
) -> dict[str, Any]:
    """Return one sample. A container that does not run has zeroes, as with Docker."""
    now, before = sample.stats, sample.previous
    made: dict[str, Any] = {
        "name": f"/{sample.container.name}",
        "id": sample.container.id,
        "read": rfc3339nano(sample.read_ns) if now else ZERO,
        "preread": rfc3339nano(sample.previous_ns) if now and before else ZERO,
        "pids_stats": _pids(now) if now else {},
        "blkio_stats": _blkio(now),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now, system_ns, sample.cpus),
        "precpu_stats": _cpu(before, previous_system_ns, sample.cpus),
        "memory_stats": _memory(now, sample.memory_limit) if now else {},
    }
    if now is not None and now.nics:
        made["networks"] = {nic.name: _nic(nic) for nic in now.nics}
    return made


def _nic(nic: Any) -> dict[str, int]:
    keys = ("bytes", "packets", "errors", "dropped")
    return {f"{way}_{key}": getattr(nic, f"{way}_{key}") for way in ("rx", "tx") for key in keys}


def _pids(now: Stats) -> dict[str, int]:
    made = {"current": now.pids_current}
    # Go's "no limit" is the largest number that there is.
    made["limit"] = now.pids_max if 0 < now.pids_max < 1 << 62 else (1 << 64) - 1
    return made


def _cpu(now: Stats | None, system_ns: int, cpus: int) -> dict[str, Any]:
    throttling = {"periods": 0, "throttled_periods": 0, "throttled_time": 0}
    if now is None:
        usage = {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}
        return {"cpu_usage": usage, "throttling_data": throttling}
    throttling = {
        "periods": now.cpu_periods,
        "throttled_periods": now.cpu_throttled_periods,
        "throttled_time": now.cpu_throttled_us * 1000,
    }
    return {
        "cpu_usage": {
            "total_usage": now.cpu_usage_us * 1000,
            "usage_in_kernelmode": now.cpu_system_us * 1000,
            "usage_in_usermode": now.cpu_user_us * 1000,
        },
        "system_cpu_usage": system_ns,
        "online_cpus": os.cpu_count() or cpus,
        "throttling_data": throttling,
    }


def _memory(now: Stats, limit: int) -> dict[str, Any]:
    details = {}
    for line in now.memory_stat.splitlines():
        key, _, value = line.partition(" ")
        if value.isascii() and value.isdigit() and len(value) < 20:
            details[key] = int(value)
    return {"usage": now.memory_current, "stats": dict(sorted(details.items())), "limit": limit}


def _blkio(now: Stats | None) -> dict[str, Any]:
    if now is None:
        return dict.fromkeys(_BLKIO)
    made: dict[str, Any] = dict.fromkeys(_BLKIO)
    made["io_service_bytes_recursive"] = _ops(now.read_bytes, now.write_bytes)
    return made


def _ops(read: int, write: int) -> list[dict[str, Any]]:
    return [
        {"major": 0, "minor": 0, "op": op, "value": value}
        for op, value in (("read", read), ("write", write))
    ]
