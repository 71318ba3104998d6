"""``create``: merge the image's configuration, resolve mounts, make the disk, write the row."""

from __future__ import annotations

import asyncio
import posixpath
import re
import shutil
import time
from collections.abc import Sequence

import msgspec

from hyperstack.engine import disks, joining, links, names, platforms, runtimes, security, wishes
from hyperstack.engine.core import Core
from hyperstack.engine.spec import rlimits
from hyperstack.engine.validate import validate
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.guest import caps
from hyperstack.ids import ContainerId, is_container_name, new_id
from hyperstack.image.manifest import Platform
from hyperstack.image.service import Image
from hyperstack.model import (
    Container,
    ContainerConfig,
    ContainerState,
    EndpointSettings,
    Healthcheck,
    HostConfig,
    LogConfig,
)
from hyperstack.volume.binds import resolve_mounts

DEFAULT_SHM = 64 << 20
_SIZE = re.compile(r"(\d+)\s*([kmgtp]?)i?b?\Z", re.IGNORECASE)


async def create(
    core: Core,
    *,
    name: str | None,
    config: ContainerConfig,
    host: HostConfig,
    networks: dict[str, EndpointSettings],
    platform: str = "",
) -> tuple[ContainerId, list[str]]:
    """Create a container and return its id and Docker's warnings.

    Raises InvalidParameter, NotFound (no such image) or Conflict (name in use).
    """
    host, warnings = validate(config, host, networks)
    if not (config.image or config.cmd or config.entrypoint):
        raise InvalidParameter("no command specified")
    identifier = ContainerId(new_id())
    image = core.images.get(config.image)
    if platform:
        platforms.check(config.image, image, Platform.parse(platform))
    elif told := platforms.warning(image):
        warnings.append(told)
    chosen = _claim_name(core, name, identifier)
    try:
        merged = merge_image(config, image, identifier)
        settled = joining.settle(core.table, _settle_host(core, host))
        check_refusals(settled)
        settled, linked = links.register(core.table, settled, chosen)
        wanted = wishes.settle(core.networks.book, merged, settled, networks)
        merged = wishes.with_mac(core.networks.book, merged, settled, wanted)
        made = await resolve_mounts(core.volumes, merged, settled, core.table, identifier)
        size = storage_size(settled, core.config.storage_size)
        container = Container(
            id=identifier,
            name=chosen,
            created_ns=time.time_ns(),
            image_id=image.id,
            config=merged,
            host=settled,
            networks=wanted,
            links=linked,
            path=(*(merged.entrypoint or ()), *(merged.cmd or ()))[0],
            args=tuple((*(merged.entrypoint or ()), *(merged.cmd or ()))[1:]),
            mounts=made,
            state=ContainerState(),
            runtime=settled.runtime,
            disk_size=size,
        )
        _make_folder(core, identifier)
        await disks.make(core, container)
        await core.table.add(container)
        core.images.get(image.id)  # its removal is refused by now, but may have come before
        await core.volumes.settle(identifier)
    except BaseException:
        if (begun := core.table.find(identifier)) is not None:
            await core.table.delete(begun)
        core.table.release_name(chosen, identifier)
        await asyncio.to_thread(shutil.rmtree, core.container_dir(identifier), True)
        await core.volumes.abandon(identifier)
        raise
    core.event(container, "create")
    return identifier, warnings


def _make_folder(core: Core, identifier: ContainerId) -> None:
    try:
        core.container_dir(identifier).mkdir(parents=True, mode=0o710)
    except OSError as error:
        raise InternalError(
            f"the container's folder in {core.config.data_root} can't be made: "
            f"{(error.strerror or str(error)).lower()}"
        ) from error


def _claim_name(core: Core, name: str | None, identifier: ContainerId) -> str:
    if not name:
        chosen = names.free(core.table)
    else:
        chosen = name.removeprefix("/")
        if not is_container_name(chosen):
            raise InvalidParameter(
                f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )
    core.table.claim(chosen, identifier)
    return chosen


def merge_image(config: ContainerConfig, image: Image, identifier: str) -> ContainerConfig:
    """Fill what the user left open from the image's configuration, as Docker's create does."""
    base = image.config
    entrypoint, cmd = config.entrypoint, config.cmd
    if not entrypoint:
        cmd = cmd or base.cmd
        entrypoint = base.entrypoint if entrypoint is None else entrypoint
    if entrypoint == ("",):
        entrypoint = None
    if not (entrypoint or cmd):
        raise InvalidParameter("no command specified")

    return msgspec.structs.replace(
        config,
        hostname=config.hostname or identifier[:12],
        user=config.user or base.user,
        exposed_ports=_union(config.exposed_ports, base.exposed_ports),
        env=merge_env(base.env, config.env),
        cmd=cmd,
        entrypoint=entrypoint,
        volumes=_union(config.volumes, base.volumes),
        working_dir=_clean(config.working_dir or base.working_dir),
        labels={**base.labels, **config.labels},
        stop_signal=config.stop_signal or base.stop_signal,
        healthcheck=_merge_check(config.healthcheck, base.healthcheck),
        on_build=config.on_build,
        given_empty=tuple(name for name in config.given_empty if name == "on_build"),
    )


def _merge_check(own: Healthcheck | None, base: Healthcheck | None) -> Healthcheck | None:
    """Fill what the user's health check leaves open from the image's, field by field."""
    if own is None or base is None:
        return own or base
    given = {name: value for name, value in msgspec.structs.asdict(own).items() if value}
    return msgspec.structs.replace(base, **given)


def _clean(path: str) -> str:
    """Return an absolute path as Go's ``filepath.Clean`` does, an empty one as it is."""
    return "/" + posixpath.normpath(path).lstrip("/") if path else ""


def _union(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def merge_env(base: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """Put the image's variables before the user's, leaving out those that the user sets."""
    names_ = {entry.partition("=")[0] for entry in own}
    return (*own, *(entry for entry in base if entry.partition("=")[0] not in names_))


def _settle_host(core: Core, host: HostConfig) -> HostConfig:
    """Write Docker's defaults into what the user left open."""

    config = core.config
    log = host.log_config
    if not log.type:
        log = LogConfig(type=config.log_driver, config={**config.log_opts, **log.config})
    runtime = runtimes.settle(core, host.runtime)
    return msgspec.structs.replace(
        host,
        log_config=log,
        runtime=runtime,
        network_mode="bridge" if host.network_mode in ("", "default") else host.network_mode,
        restart_policy=host.restart_policy
        if host.restart_policy.name
        else msgspec.structs.replace(host.restart_policy, name="no"),
        security_opt=(*host.security_opt, *security.labels_off(host)),
        given_empty=tuple(name for name in host.given_empty if name != "links"),
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or "private",
        shm_size=host.shm_size or DEFAULT_SHM,
        memory_swap=host.memory_swap or (host.memory * 2 if host.memory else 0),
    )


def check_refusals(host: HostConfig) -> None:
    """Run every translation that can refuse, so that create says so and not start."""
    for target in host.tmpfs:
        if not target.startswith("/"):
            raise InvalidParameter(f"invalid mount path: '{target}' mount path must be absolute")
        if not posixpath.normpath(target).strip("/"):
            raise InvalidParameter("invalid specification: destination can't be '/'")
    rlimits(host.ulimits)
    for option, names_ in (("CapAdd", host.cap_add), ("CapDrop", host.cap_drop)):
        try:
            caps.normalize(names_)
        except InvalidParameter as error:
            raise InvalidParameter(f"invalid {option}: {error.message}") from error


def storage_size(host: HostConfig, default: int) -> int:
    """Return the disk's size in bytes from ``--storage-opt size=``.

    Raises InvalidParameter, and InternalError as dockerd for an option that there is not.
    """
    for key, value in host.storage_opt.items():
        if key.lower() != "size":
            raise InternalError(f"Unknown option {key}")
        match = _SIZE.match(value.strip())
        if match is None:
            raise InvalidParameter(f"invalid size: '{value}'")
        unit: int = 1024 ** " kmgtp".index(match[2].lower() or " ")
        size = int(match[1]) * unit
        if not disks.SMALLEST <= size <= disks.LARGEST:
            raise InvalidParameter(
                f"storage size {value} is out of range: it must lie between "
                f"{disks.SMALLEST >> 20}M and {disks.LARGEST >> 40}T"
            )
        return size
    return default
