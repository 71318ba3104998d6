"""Images: inspect, list and history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from hyperstack.api.docker.gotime import ZERO, rfc3339nano
from hyperstack.api.docker.schema.config import CONFIG, image_config
from hyperstack.api.docker.schema.inspect import STORAGE_DRIVER
from hyperstack.errors import InvalidParameter
from hyperstack.image.values import Image
from hyperstack.model import ContainerConfig

if TYPE_CHECKING:
    from hyperstack.image.distribution import Distribution
    from hyperstack.image.manifest import Platform

NS = 1_000_000_000


def image_inspect(
    image: Image, version: tuple[int, int], made_of: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an image as inspect shows it to a client of API *version*.

    *made_of* is the configuration of the container that it was made of, as its config has it.
    """
    made: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.names),
        "RepoDigests": list(image.repo_digests),
        "Parent": image.parent,
        "Comment": image.comment,
    }
    if image.created or version < (1, 44):
        made["Created"] = image.created or ZERO
    if version < (1, 45):
        if image.container:
            made["Container"] = image.container
        made["ContainerConfig"] = image_config(_container(made_of), slim=False)
    made["DockerVersion"] = image.docker_version
    made["Author"] = image.author
    made["Config"] = _config(image, slim=version >= (1, 50))
    made["Architecture"] = image.architecture
    if image.variant:
        made["Variant"] = image.variant
    made["Os"] = image.os
    if image.os_version:
        made["OsVersion"] = image.os_version
    made["Size"] = image.size
    if version < (1, 44):
        made["VirtualSize"] = image.size
    made["GraphDriver"] = {"Data": None, "Name": STORAGE_DRIVER}
    made["RootFS"] = {"Type": "layers"}
    if image.diff_ids:
        made["RootFS"]["Layers"] = list(image.diff_ids)
    tagged = rfc3339nano(image.last_tagged_ns) if image.last_tagged_ns else ZERO
    made["Metadata"] = {"LastTagTime": tagged}
    return made


def _container(raw: Mapping[str, Any]) -> ContainerConfig:
    """Read a configuration that anybody may have written: what is none says nothing."""
    try:
        return CONFIG.read(dict(raw))
    except InvalidParameter:
        return ContainerConfig()


def _config(image: Image, *, slim: bool) -> dict[str, Any]:
    config = image.config
    # Empty lists and maps are left out of the form in which dockerd reads it.
    config = replace(
        config,
        given_empty=(),
        cmd=config.cmd or None,
        entrypoint=config.entrypoint or None,
        on_build=config.on_build or None,
        shell=config.shell or None,
    )
    made = image_config(config, slim=slim)
    made.pop("StopTimeout", None)  # an image has none for dockerd, whatever its config says
    return made


def image_summary(
    image: Image,
    version: tuple[int, int],
    *,
    containers: int = -1,
    shared: int = -1,
    usage: bool = False,
) -> dict[str, Any]:
    """Return an image as lists show it; -1 is "not counted". *usage*: as ``system df`` shows it."""
    made: dict[str, Any] = {
        "Containers": containers,
        "Created": image.created_ns // NS,
        "Id": image.id,
        "Labels": _labels(image),
        "ParentId": image.parent,
        "RepoDigests": list(image.repo_digests),
        "RepoTags": list(image.names),
        "SharedSize": shared,
        "Size": image.size,
    }
    if usage:
        # Nobody has brought these lists into the form of any version.
        made["RepoTags"] = made["RepoTags"] or None
        made["RepoDigests"] = made["RepoDigests"] or None
    elif version < (1, 43) and not image.names:
        # Old clients print what they are given; new ones put <none> themselves.
        name = image.repo_digests[0].partition("@")[0] if image.repo_digests else "<none>"
        made["RepoTags"] = [f"{name}:<none>"]
        made["RepoDigests"] = made["RepoDigests"] or ["<none>@<none>"]
    if version < (1, 43):
        made["RepoDigests"] = made["RepoDigests"] or None
    if version < (1, 44):
        made["VirtualSize"] = image.size
    return made


def _labels(image: Image) -> dict[str, str] | None:
    labels = image.config.labels
    return dict(sorted(labels.items())) if labels or "labels" in image.config.given_empty else None


def history_item(
    *, identifier: str, created: int, created_by: str, tags: Sequence[str], size: int, comment: str
) -> Mapping[str, Any]:
    """Return one line of an image's history; *created* in seconds since the epoch."""
    return {
        "Comment": comment,
        "Created": created,
        "CreatedBy": created_by,
        "Id": identifier,
        "Size": size,
        "Tags": list(tags) or None,
    }


def deleted(items: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Return what removing images did: Untagged and Deleted, in order."""
    words = {"untagged": "Untagged", "deleted": "Deleted"}
    return [{words[what]: text} for what, text in items]


def distribution(found: Distribution) -> dict[str, Any]:
    """Return what a name is at its registry."""
    return {
        "Descriptor": {
            "mediaType": found.media_type,
            "digest": found.digest,
            "size": found.size,
        },
        "Platforms": [_platform(platform) for platform in found.platforms] or None,
    }


def _platform(platform: Platform) -> dict[str, str]:
    made = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        made["os.version"] = platform.os_version
    if platform.variant:
        made["variant"] = platform.variant
    return made
