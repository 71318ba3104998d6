"""The parameters of ``POST /build`` (moby, ``api/server/router/build``)."""

from __future__ import annotations

import re
from typing import Any

from hyperstack.api.docker import gojson
from hyperstack.api.docker.query import Query
from hyperstack.api.docker.schema.host import ULIMIT
from hyperstack.build.options import BuildOptions
from hyperstack.build.shell import go_quote
from hyperstack.errors import InternalError, InvalidParameter, NotImplementedHere
from hyperstack.model import HostConfig, Ulimit

MOST_TAGS = 1000
BUILDKIT = (
    "BuildKit is not supported by this engine's builder: build with DOCKER_BUILDKIT=0 (version=1)"
)


def read_options(query: Query, auth_header: str | None) -> BuildOptions:
    """Read the parameters. Raises InvalidParameter, NotImplementedHere for what is refused."""
    _refuse(query)
    remove = query.flag("forcerm") or query.flag("rm", True) or not query.text("rm")
    return BuildOptions(
        remote=query.text("remote"),
        dockerfile=query.text("dockerfile"),
        tags=tuple(query.all("t")[:MOST_TAGS]),
        quiet=query.flag("q"),
        no_cache=query.flag("nocache"),
        cache_from=tuple(_strings(query, "cachefrom")),
        pull=query.flag("pull"),
        remove=remove,
        force_remove=query.flag("forcerm"),
        build_args=_map(query, "buildargs", "error reading build args", nulls=True),
        labels={k: v or "" for k, v in _map(query, "labels", "error reading labels").items()},
        platform=query.text("platform"),
        target=query.text("target"),
        host=_host(query),
        auth=_auth(auth_header),
    )


def _auth(header: str | None) -> Any:
    if not header:
        return {}
    from hyperstack.image.auth import decode_auths

    try:
        return decode_auths(header)
    except InvalidParameter:
        return {}  # as Docker: most pulls need none


def _refuse(query: Query) -> None:
    version = query.text("version")
    if version not in ("", "1", "2"):
        raise InvalidParameter(f"invalid version {go_quote(version)}")
    if version == "2":
        raise NotImplementedHere(BUILDKIT)
    if query.flag("squash"):
        raise InvalidParameter("squash is only supported with experimental mode")
    if query.text("remote") == "client-session":
        raise InvalidParameter(
            "experimental session with v1 builder is no longer supported, use builder version v2 "
            "(BuildKit) instead"
        )
    if query.all("securityopt"):
        raise InvalidParameter("security options are not supported on linux")
    if (isolation := query.text("isolation")) not in ("", "default"):
        raise InvalidParameter(f"unsupported isolation: {go_quote(isolation)}")


def _host(query: Query) -> HostConfig:
    return HostConfig(
        memory=_number(query, "memory"),
        memory_swap=_number(query, "memswap"),
        cpu_shares=_number(query, "cpushares"),
        cpu_period=_number(query, "cpuperiod"),
        cpu_quota=_number(query, "cpuquota"),
        cpuset_cpus=query.text("cpusetcpus"),
        cpuset_mems=query.text("cpusetmems"),
        cgroup_parent=query.text("cgroupparent"),
        network_mode=query.text("networkmode") or "default",
        extra_hosts=tuple(query.all("extrahosts")),
        shm_size=_shm(query.text("shmsize")),
        ulimits=_ulimits(query.text("ulimits")),
    )


def _shm(text: str) -> int:
    """Read the size of /dev/shm. Raises InternalError, as Docker does here."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text or "0"):
        raise InternalError(f"strconv.ParseInt: parsing {go_quote(text)}: invalid syntax")
    return int(text or "0")


def _number(query: Query, key: str) -> int:
    """Return a number, 0 if it is none, as Docker does for these."""
    try:
        return query.integer(key)
    except InvalidParameter:
        return 0


def _ulimits(text: str) -> tuple[Ulimit, ...]:
    if not text:
        return ()
    what = "error reading ulimit settings"
    raw = _decoded(text, what)
    if raw is None:
        return ()
    if not isinstance(raw, list):
        raise InvalidParameter(f"{what}: {_mismatch(raw, 'value of type []*units.Ulimit')}")
    return tuple(ULIMIT.read(one) for one in raw if one is not None)


def _map(query: Query, key: str, what: str, *, nulls: bool = False) -> dict[str, str | None]:
    text = query.text(key)
    raw = _decoded(text, what) if text else None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        kind = "map[string]*string" if nulls else "map[string]string"
        raise InvalidParameter(f"{what}: {_mismatch(raw, f'value of type {kind}')}")
    for name, value in raw.items():
        if not (isinstance(value, str) or value is None):
            words = _mismatch(value, f"struct field .{name} of type string")
            raise InvalidParameter(f"{what}: {words}")
    return raw if nulls else {name: value or "" for name, value in raw.items()}


def _strings(query: Query, key: str) -> list[str]:
    text = query.text(key)
    what = "error reading cache-from"
    raw = _decoded(text, what) if text else None
    if raw is None:
        return []
    if not isinstance(raw, list):
        raise InvalidParameter(f"{what}: {_mismatch(raw, 'value of type []string')}")
    for one in raw:
        if not isinstance(one, str):
            raise InvalidParameter(f"{what}: {_mismatch(one, 'value of type string')}")
    return raw


def _mismatch(value: object, wanted: str) -> str:
    """Say what is wrong with a value's type, in Go's words."""
    kinds = {dict: "object", list: "array", str: "string", bool: "bool"}
    return f"json: cannot unmarshal {kinds.get(type(value), 'number')} into Go {wanted}"


def _decoded(text: str, what: str) -> Any:
    try:
        return gojson.decode(text.encode())
    except InvalidParameter as error:
        words = error.message.removeprefix("invalid JSON: ")
        if words == "unexpected EOF":
            words = "unexpected end of JSON input"
        raise InvalidParameter(f"{what}: {words}") from error


__all__ = ["BUILDKIT", "read_options"]
