"""What a mount shows of the host, looked up when its container starts: binds, paths in volumes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hyperstack.errors import HyperError, InternalError, InvalidParameter, NotFound
from hyperstack.model import MountState

_SHARED, _SLAVE = frozenset({"shared", "rshared"}), frozenset({"slave", "rslave"})


def bind_source(mount: MountState) -> Path:
    """Return a bind's host path, made if it is missing and may be made; blocking.

    Raises HyperError in Docker's words, or if the mount's options contradict each other.
    """
    source = Path(mount.source)
    if mount.make_source:
        make_source(source)
    error = missing(mount.source)
    if error is not None:
        raise error
    if mount.read_only_force_recursive:
        _check_recursion(mount)
    if mount.propagation in _SHARED | _SLAVE:
        _check_propagation(mount)
    return source


def make_source(source: Path) -> None:
    """Make the directory of a ``-v`` whose path is not there; blocking. Raises InternalError."""
    try:
        source.stat()
    except FileNotFoundError:
        pass
    except OSError:
        return  # something is there, or in the way, as the mount will tell
    else:
        return
    try:
        source.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InternalError(
            f"error while creating mount source path '{source}': mkdir {source}: "
            f"{(error.strerror or str(error)).lower()}"
        ) from error


def missing(source: str) -> HyperError | None:
    """Return what to say of a bind's path that can't be had; None if it is there; blocking."""
    refused = 'invalid mount config for type "bind": '
    try:
        os.stat(source)  # noqa: PTH116 - a slash at the end counts, and Path drops it
    except FileNotFoundError:
        return InvalidParameter(f"{refused}bind source path does not exist: {source}")
    except OSError as error:
        return InvalidParameter(f"{refused}stat {source}: {(error.strerror or '').lower()}")
    return None


def _check_recursion(mount: MountState) -> None:
    conflict = ""
    if mount.read_write:
        conflict = "!ReadOnly"
    elif mount.read_only_non_recursive:
        conflict = "ReadOnlyNonRecursive"
    if conflict:
        raise InternalError(
            f"mount options conflict: {conflict} && BindOptions.ReadOnlyForceRecursive"
        )


@dataclass(frozen=True, kw_only=True)
class _Mounted:
    """One mount of this process's namespace: where, and whether it is in a group of peers."""

    point: str
    shared: bool
    slave: bool


def _check_propagation(mount: MountState) -> None:
    """Raise InternalError, as Docker does, unless the host's mount of a bind's path propagates."""
    found = _mount_of(mount.source)
    wanted = "shared" if mount.propagation in _SHARED else "shared or slave"
    if not (found.shared or (mount.propagation in _SLAVE and found.slave)):
        raise InternalError(
            f"path {mount.source} is mounted on {found.point} but it is not a {wanted} mount"
        )


def _mount_of(path: str) -> _Mounted:
    real = os.path.realpath(path)
    best = _Mounted(point="/", shared=False, slave=False)
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        fields = line.split(" ")
        point, options = fields[4], fields[6 : fields.index("-")]
        inside = point == "/" or real == point or real.startswith(f"{point}/")
        if inside and len(point) >= len(best.point):
            best = _Mounted(
                point=point,
                shared=any(o.startswith("shared:") for o in options),
                slave=any(o.startswith("master:") for o in options),
            )
    return best


def beneath(root: Path, subpath: str) -> Path:
    """Return an existing path below a volume; a link that leads out of it is refused; blocking.

    Whatever a guest makes of the path afterwards: the jail binds it once, by the name found here,
    which has no link left in it.
    """
    base = root.resolve()
    combined = base / subpath
    try:
        found = combined.resolve(strict=True)
    except FileNotFoundError as error:
        missing = os.path.normpath(combined)
        raise NotFound(
            f"cannot access path {missing}: lstat {missing}: no such file or directory"
        ) from error
    except (OSError, RuntimeError) as error:
        words = "too many links"
        if isinstance(error, OSError):
            words = (error.strerror or "").lower()
        raise InternalError(
            f'error while resolving symlinks in combined path "{combined}": {words}'
        ) from error
    if found != base and base not in found.parents:
        raise InvalidParameter(
            f"path concatenation escapes the base directory, base: {base}, subpath: {subpath}"
        )
    return found
