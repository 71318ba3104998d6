"""An image's config as bytes: read into values with bounds, and written for images made here.

OCI image specification 1.1 ("Image Configuration"), with Docker's additions (Healthcheck, OnBuild,
Shell, ArgsEscaped, docker_version, container). Go's rules hold: null is the zero value, unknown
keys are ignored. Whatever it says is data: nothing of it reaches a path or a command of the host.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from hyperstack.errors import InvalidParameter
from hyperstack.ids import is_id
from hyperstack.image.values import HistoryEntry
from hyperstack.model import ContainerConfig, Healthcheck

MAX_CONFIG = 8 << 20
MAX_LAYERS = 500
"""The kernel's overlay takes so many lower layers (Docker makes 127 at most)."""
MAX_ENTRIES = 10_000
"""Entries of one list or map of a config: environment, labels, ports, volumes, history."""
EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""Diff id of a tar without entries, 1024 zero bytes."""
NO_TIME = "0001-01-01T00:00:00Z"
_PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp|sctp))?\Z", re.IGNORECASE)
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,18}))?(Z|[+-]\d\d:\d\d)\Z"
)

Strings = list[str] | None
Struct = msgspec.Struct
_name = msgspec.field


class _Healthcheck(Struct, omit_defaults=True):
    test: Strings = _name(name="Test", default=None)
    interval: int | None = _name(name="Interval", default=None)
    timeout: int | None = _name(name="Timeout", default=None)
    start_period: int | None = _name(name="StartPeriod", default=None)
    start_interval: int | None = _name(name="StartInterval", default=None)
    retries: int | None = _name(name="Retries", default=None)


class _Config(Struct):
    """What ``config`` holds; the order is that in which Docker writes it."""

    user: str | None = _name(name="User", default=None)
    exposed_ports: dict[str, Any] | None = _name(name="ExposedPorts", default=None)
    env: Strings = _name(name="Env", default=None)
    entrypoint: Strings | str = _name(name="Entrypoint", default=None)
    cmd: Strings | str = _name(name="Cmd", default=None)
    healthcheck: _Healthcheck | None = _name(name="Healthcheck", default=None)
    args_escaped: bool | None = _name(name="ArgsEscaped", default=None)
    volumes: dict[str, Any] | None = _name(name="Volumes", default=None)
    working_dir: str | None = _name(name="WorkingDir", default=None)
    on_build: Strings = _name(name="OnBuild", default=None)
    labels: dict[str, str | None] | None = _name(name="Labels", default=None)
    stop_signal: str | None = _name(name="StopSignal", default=None)
    stop_timeout: int | None = _name(name="StopTimeout", default=None)
    shell: Strings | str = _name(name="Shell", default=None)


class _History(Struct, omit_defaults=True):
    created: str | None = None
    author: str | None = None
    created_by: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class _MadeOf(Struct):
    """What a config says of the container that the image was made of."""

    container_config: dict[str, Any] | None = None


class _RootFs(Struct):
    type: str | None = None
    diff_ids: Strings = None


class _File(Struct):
    architecture: str | None = None
    author: str | None = None
    comment: str | None = None
    config: _Config | None = None
    container: str | None = None
    created: str | None = None
    docker_version: str | None = None
    history: list[_History] | None = None
    os: str | None = None
    os_version: str | None = _name(name="os.version", default=None)
    rootfs: _RootFs | None = None
    variant: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """A parsed config; see ``values.Image`` for the fields."""

    created: str = ""
    author: str = ""
    comment: str = ""
    container: str = ""
    docker_version: str = ""
    architecture: str = ""
    variant: str = ""
    os: str = ""
    os_version: str = ""
    config: ContainerConfig
    made_of: ContainerConfig | None = None
    """The configuration of the container that it was made of: written, but read on its own."""
    diff_ids: tuple[str, ...]
    history: tuple[HistoryEntry, ...] = ()
    has_rootfs: bool = True


_decoder = msgspec.json.Decoder(_File)
_MAYBE_EMPTY = ("exposed_ports", "env", "volumes", "on_build", "labels")
"""Lists and maps of a config that are shown as empty if they are there, and as null if not."""


def parse(data: bytes) -> ImageConfig:
    """Read a config. Raises InvalidParameter if it is none, or over a bound."""
    if len(data) > MAX_CONFIG:
        raise InvalidParameter(f"image config is larger than {MAX_CONFIG >> 20} MiB")
    try:
        file = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        reason = "unexpected end of JSON input" if "truncated" in str(error) else error
        raise InvalidParameter(f"invalid image config: {reason}") from error
    diff_ids = _diff_ids(file.rootfs)
    history = tuple(map(_history, _bounded(file.history, "history")))
    return ImageConfig(
        created=file.created or "",
        author=file.author or "",
        comment=file.comment or "",
        container=file.container or "",
        docker_version=file.docker_version or "",
        architecture=file.architecture or "",
        variant=file.variant or "",
        os=file.os or "",
        os_version=file.os_version or "",
        config=_container_config(file.config or _Config()),
        diff_ids=diff_ids,
        history=history,
        has_rootfs=file.rootfs is not None,
    )


def made_of(data: bytes) -> dict[str, Any]:
    """Return ``container_config`` of a config by Docker's keys, as it is; empty without one."""
    try:
        return msgspec.json.decode(data, type=_MadeOf).container_config or {}
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return {}


def _diff_ids(rootfs: _RootFs | None) -> tuple[str, ...]:
    found = tuple((rootfs.diff_ids if rootfs else None) or ())
    if len(found) > MAX_LAYERS:
        raise InvalidParameter("max depth exceeded")
    for diff_id in found:
        if not (diff_id.startswith("sha256:") and is_id(diff_id[7:])):
            raise InvalidParameter(f"invalid diff id {diff_id[:100]!r} in image config")
    return found


def _bounded(entries: Iterable[Any] | None, what: str) -> list[Any]:
    found = list(entries or ())
    if len(found) > MAX_ENTRIES:
        raise InvalidParameter(f"image config has more than {MAX_ENTRIES} entries in {what}")
    return found


def _history(entry: _History) -> HistoryEntry:
    return HistoryEntry(
        created=entry.created or "",
        created_by=entry.created_by or "",
        author=entry.author or "",
        comment=entry.comment or "",
        empty_layer=bool(entry.empty_layer),
    )


def _container_config(config: _Config) -> ContainerConfig:
    return ContainerConfig(
        user=config.user or "",
        exposed_ports=_ports(_bounded(config.exposed_ports, "ExposedPorts")),
        env=tuple(_bounded(config.env, "Env")),
        entrypoint=_words(config.entrypoint),
        cmd=_words(config.cmd),
        healthcheck=_healthcheck(config.healthcheck),
        args_escaped=bool(config.args_escaped),
        volumes=tuple(_bounded(config.volumes, "Volumes")),
        working_dir=config.working_dir or "",
        on_build=tuple(config.on_build) if config.on_build else None,
        labels={key: value or "" for key, value in _labels(config.labels)},
        stop_signal=config.stop_signal or "",
        stop_timeout=config.stop_timeout,
        shell=_words(config.shell),
        given_empty=tuple(name for name in _MAYBE_EMPTY if getattr(config, name) in ([], {})),
    )


def _labels(labels: Mapping[str, str | None] | None) -> list[tuple[str, str | None]]:
    return _bounded((labels or {}).items(), "Labels")


def _words(value: Strings | str) -> tuple[str, ...] | None:
    if value is None:
        return None
    return (value,) if isinstance(value, str) else tuple(_bounded(value, "a command"))


def _ports(ports: list[str]) -> tuple[str, ...]:
    """Return ports as ``80/tcp``; what is no port is left out, as it can't be published."""
    matches = (_PORT.match(port) for port in ports)
    return tuple(
        f"{int(match[1])}/{(match[2] or 'tcp').lower()}"
        for match in matches
        if match and int(match[1]) < 1 << 16
    )


def _healthcheck(check: _Healthcheck | None) -> Healthcheck | None:
    if check is None:
        return None
    return Healthcheck(
        test=tuple(_bounded(check.test, "Healthcheck")),
        interval=check.interval or 0,
        timeout=check.timeout or 0,
        start_period=check.start_period or 0,
        start_interval=check.start_interval or 0,
        retries=check.retries or 0,
    )


def encode(image: ImageConfig) -> bytes:
    """Write a config for an image made here; the same values always give the same bytes."""
    value = {
        "architecture": image.architecture,
        **_given(author=image.author, comment=image.comment),
        "config": encode_container_config(image.config),
        **_given(container=image.container),
        **({"container_config": _container(image.made_of)} if image.made_of else {}),
        "created": image.created or NO_TIME,
        **_given(docker_version=image.docker_version),
        "history": [
            _given(
                created=entry.created,
                author=entry.author,
                created_by=entry.created_by,
                comment=entry.comment,
                empty_layer=entry.empty_layer,
            )
            for entry in image.history
        ],
        "os": image.os,
        **_given(**{"os.version": image.os_version}),
        "rootfs": {"type": "layers", "diff_ids": list(image.diff_ids)},
        **_given(variant=image.variant),
    }
    data = msgspec.json.encode(value)
    if len(data) > MAX_CONFIG:
        raise InvalidParameter(f"image config is larger than {MAX_CONFIG >> 20} MiB")
    return data


def encode_container_config(config: ContainerConfig) -> dict[str, Any]:
    """Return the part of a container's configuration that belongs to images, by Docker's keys."""
    check = config.healthcheck
    made = _given(
        User=config.user,
        ExposedPorts={port: {} for port in sorted(config.exposed_ports)},
        Env=config.env,
        Entrypoint=config.entrypoint,
        Cmd=config.cmd,
        Healthcheck=_given(
            Test=check.test,
            Interval=check.interval,
            Timeout=check.timeout,
            StartPeriod=check.start_period,
            StartInterval=check.start_interval,
            Retries=check.retries,
        )
        if check
        else None,
        ArgsEscaped=config.args_escaped,
        Volumes={volume: {} for volume in sorted(config.volumes)},
        WorkingDir=config.working_dir,
        OnBuild=config.on_build,
        Labels=dict(sorted(config.labels.items())),
        StopSignal=config.stop_signal,
        Shell=config.shell,
    )
    if config.stop_timeout is not None:
        made["StopTimeout"] = config.stop_timeout  # 0 is not the same as none
    return made


def _container(config: ContainerConfig) -> dict[str, Any]:
    """Return a container's configuration by Docker's keys."""
    only = _given(
        Hostname=config.hostname,
        Domainname=config.domainname,
        AttachStdin=config.attach_stdin,
        AttachStdout=config.attach_stdout,
        AttachStderr=config.attach_stderr,
        Tty=config.tty,
        OpenStdin=config.open_stdin,
        StdinOnce=config.stdin_once,
        Image=config.image,
        NetworkDisabled=config.network_disabled,
        MacAddress=config.mac_address,
    )
    return {**only, **encode_container_config(config), "Labels": dict(config.labels)}


def _given(**values: Any) -> dict[str, Any]:
    """Leave out what is zero, as Go's omitempty does."""
    return {key: value for key, value in values.items() if value}


def to_ns(text: str) -> int:
    """Return ns since the epoch of an RFC 3339 time, 0 if it is none."""
    match = _TIME.match(text)
    if match is None:
        return 0
    year, month, day, hour, minute, second = (int(match[n]) for n in range(1, 7))
    zone = match[8]
    offset = 0
    if zone != "Z":
        offset = (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60) * (-1 if zone[0] == "-" else 1)
    try:
        datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        return 0
    seconds = timegm((year, month, day, hour, minute, second)) - offset
    return seconds * 10**9 + int((match[7] or "")[:9].ljust(9, "0"))


def from_ns(time_ns: int) -> str:
    """Return a time as Go writes it: RFC 3339 in UTC, trailing zeros of the fraction left out."""
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    fraction = f"{time_ns % 10**9:09}".rstrip("0")
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{fraction}" if fraction else "") + "Z"
