"""``--device``: nodes of the guest's own devices in a container.

A virtual machine has none of the host's devices, so a path means the device of that name that a
guest's kernel has. Sentences are those of moby's ``daemon/oci_linux.go`` for a path that is not
there. A guest has no device controller: what a container may do with a node is what its mode says,
so rules of that controller only allow what is allowed already.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from hyperstack.errors import InternalError
from hyperstack.guest import messages
from hyperstack.model import DeviceMapping, DeviceRequest, HostConfig

_CHARACTER, _BLOCK = ord("c"), ord("b")
LOOPS = 8
"""Loop devices that a guest's kernel makes."""
_MISC = {"fuse": 229, "net/tun": 200, "loop-control": 237, "hwrng": 183, "userfaultfd": 256}
_MEMORY = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9, "kmsg": 11}
# Names of /dev, each with its type, major and minor number (Linux, admin-guide/devices.txt).
_KNOWN = {
    **{f"/dev/{name}": (_CHARACTER, 1, minor) for name, minor in _MEMORY.items()},
    **{f"/dev/{name}": (_CHARACTER, 10, minor) for name, minor in _MISC.items()},
    "/dev/tty": (_CHARACTER, 5, 0),
    "/dev/console": (_CHARACTER, 5, 1),
    "/dev/ptmx": (_CHARACTER, 5, 2),
    **{f"/dev/tty{minor}": (_CHARACTER, 4, minor) for minor in range(16)},
    **{f"/dev/loop{minor}": (_BLOCK, 7, minor) for minor in range(LOOPS)},
}
_STANDARD = frozenset({"/dev/ptmx", "/dev/console"})
"""What every container has under this name, as a link or of its own."""
_OPEN = frozenset("rw")
_EVERY = frozenset("rwm")
_RULE = re.compile(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}\Z")


def nodes(host: HostConfig) -> tuple[messages.Device, ...]:
    """Return the nodes to make beside the standard ones. Raises InternalError, as dockerd."""
    for request in host.device_requests:
        raise InternalError(_no_driver(request))
    for rule in host.device_cgroup_rules:
        if _RULE.match(rule) is None:
            raise InternalError(f"invalid device cgroup rule format: '{rule}'")
    if host.privileged:
        return ()  # it has every device of the guest
    made = (_node(device) for device in host.devices)
    return tuple(node for node in made if node.path not in _STANDARD)


def _no_driver(request: DeviceRequest) -> str:
    """Word ``--gpus`` as on a host that has no driver for it, and so every guest."""
    if request.driver == "cdi":
        names = ", ".join(request.device_ids)
        return f"CDI device injection failed: unresolvable CDI devices {names}"
    wanted = " ".join("[" + " ".join(names) + "]" for names in request.capabilities)
    return f'could not select device driver "{request.driver}" with capabilities: [{wanted}]'


def _node(device: DeviceMapping) -> messages.Device:
    known = _KNOWN.get(device.path_on_host)
    if known is None:
        raise InternalError(
            "error gathering device information while adding custom device "
            f'"{device.path_on_host}": no such file or directory'
        )
    kind, major, minor = known
    allowed = set(device.cgroup_permissions) or _EVERY
    bits = (4 if "r" in allowed else 0) | (2 if "w" in allowed else 0)
    path = posixpath.normpath("/" + (device.path_in_container or device.path_on_host))
    return messages.Device(
        path="/" + path.lstrip("/"), type=kind, major=major, minor=minor, mode=bits * 0o111
    )


def warnings(devices: Sequence[DeviceMapping]) -> Iterator[str]:
    """Say what of the permissions can't be kept from a container's root."""
    for device in devices:
        if device.cgroup_permissions and not set(device.cgroup_permissions) >= _OPEN:
            yield (
                f"The guest's kernel has no device controller: {device.path_on_host} gets the "
                f"mode for {device.cgroup_permissions}, which root may change."
            )
