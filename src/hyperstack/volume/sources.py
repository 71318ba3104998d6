"""What a mount shows of the host, looked up when its container starts: binds, paths in volumes."""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from hyperstack.errors import HyperError, InternalError, InvalidParameter, NotFound
from hyperstack.model import MountState

SYS_OPENAT2 = 437
"""The same number on every architecture (asm-generic/unistd.h)."""
NO_MAGIC_LINKS, NO_LINKS, BENEATH = 2, 4, 8
"""RESOLVE_* of openat2(2)."""

_libc = ctypes.CDLL(None, use_errno=True)
_SHARED, _SLAVE = frozenset({"shared", "rshared"}), frozenset({"slave", "rslave"})


class Absent(InvalidParameter):
    """A bind's path that is not there."""


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
    _check_recursion(mount)
    if mount.propagation in _SHARED | _SLAVE and not mount.implied:
        _check_propagation(mount)
    return source


def make_source(source: Path) -> None:
    """Make the directory of a ``-v`` whose path is not there; blocking. Raises InternalError."""
    try:
        source.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
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
        return Absent(f"{refused}bind source path does not exist: {source}")
    except OSError as error:
        return InvalidParameter(f"{refused}stat {source}: {(error.strerror or '').lower()}")
    return None


def _check_recursion(mount: MountState) -> None:
    """Raise InternalError for options about being read-only that can't go together."""
    forced, top_alone = mount.read_only_force_recursive, mount.read_only_non_recursive
    conflict = ""
    if mount.read_write and (forced or top_alone):
        option = "ReadOnlyNonRecursive" if top_alone else "ReadOnlyForceRecursive"
        conflict = f"!ReadOnly && BindOptions.{option}"
    elif forced and top_alone:
        conflict = "ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive"
    if conflict:
        raise InternalError(f"mount options conflict: {conflict}")


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

    A guest may put a link into the path found here at any time: who mounts it opens it with
    ``open_beneath``.
    """
    base = root.resolve()
    combined = base / os.path.normpath(subpath)
    try:
        found = combined.resolve(strict=True)
    except FileNotFoundError as error:
        raise NotFound(
            f"cannot access path {combined}: lstat {error.filename}: no such file or directory"
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


class _How(ctypes.Structure):
    """``struct open_how`` of openat2(2)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_beneath(root: Path, path: Path) -> int:
    """Open what ``beneath`` found, without following any link; blocking.

    Returns a descriptor (O_PATH) that names it whatever becomes of its path. Raises InternalError
    if a guest has changed the path meanwhile.
    """
    how = _How(flags=os.O_PATH | os.O_CLOEXEC, resolve=NO_MAGIC_LINKS | NO_LINKS | BENEATH, mode=0)
    folder = -1
    try:
        folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        name = os.fsencode(path.relative_to(root.resolve()))
        size = ctypes.sizeof(how)
        fd = int(_libc.syscall(SYS_OPENAT2, folder, name, ctypes.byref(how), size))
        if fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InternalError(f"failed to open path {path} in a volume: {reason}") from error
    finally:
        if folder >= 0:
            os.close(folder)
    return fd
