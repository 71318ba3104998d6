"""The parameters of ``POST /build`` (moby, ``api/server/router/build``)."""

from __future__ import annotations

from typing import Any

from hyperstack.api.docker import gojson
from hyperstack.api.docker.query import Query
from hyperstack.api.docker.schema.host import ULIMIT
from hyperstack.build.options import BuildOptions
from hyperstack.errors import InvalidParameter, NotImplementedHere
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
        raise InvalidParameter(f"invalid version {version}")
    if version == "2":
        raise NotImplementedHere(BUILDKIT)
    if query.flag("squash"):
        raise InvalidParameter("squash is only supported with experimental mode")
    if query.text("outputs") not in ("", "null", "[]"):
        raise InvalidParameter("outputs require BuildKit")
    if query.text("remote") == "client-session":
        raise InvalidParameter(
            "experimental session with v1 builder is no longer supported, use builder version v2 "
            "(BuildKit) instead"
        )
    if query.all("securityopt"):
        raise InvalidParameter(
            "The daemon on this platform does not support setting security options on build"
        )


def _host(query: Query) -> HostConfig:
    shm = query.text("shmsize")
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
        shm_size=query.integer("shmsize") if shm else 0,
        ulimits=_ulimits(query.text("ulimits")),
        isolation=query.text("isolation"),
    )


def _number(query: Query, key: str) -> int:
    """Return a number, 0 if it is none, as Docker does for these."""
    try:
        return query.integer(key)
    except InvalidParameter:
        return 0


def _ulimits(text: str) -> tuple[Ulimit, ...]:
    if not text:
        return ()
    raw = _decoded(text, "error reading ulimit settings") or []
    if not isinstance(raw, list):
        raise InvalidParameter("error reading ulimit settings: not a list")
    return tuple(ULIMIT.read(one) for one in raw if one is not None)


def _map(query: Query, key: str, what: str, *, nulls: bool = False) -> dict[str, str | None]:
    text = query.text(key)
    raw = _decoded(text, what) if text else None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise InvalidParameter(f"{what}: not an object of strings")
    for value in raw.values():
        if not (isinstance(value, str) or value is None):
            raise InvalidParameter(f"{what}: not an object of strings")
    return raw if nulls else {name: value or "" for name, value in raw.items()}


def _strings(query: Query, key: str) -> list[str]:
    text = query.text(key)
    raw = _decoded(text, f"error reading {key}") if text else None
    if raw is None:
        return []
    if not (isinstance(raw, list) and all(isinstance(one, str) for one in raw)):
        raise InvalidParameter(f"error reading {key}: not a list of strings")
    return raw


def _decoded(text: str, what: str) -> Any:
    try:
        return gojson.decode(text.encode())
    except InvalidParameter as error:
        raise InvalidParameter(f"{what}: {error.message}") from error


__all__ = ["BUILDKIT", "read_options"]
