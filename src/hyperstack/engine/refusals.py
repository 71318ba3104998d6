"""What a guest says when it can't start a process, in the words in which runc and dockerd say it.

Clients find the exit codes 126 and 127 in these sentences.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence

from hyperstack.errors import HyperError, InternalError, InvalidParameter
from hyperstack.guest.client import AgentFailure
from hyperstack.guest.messages import Stage
from hyperstack.model import MountState

UNKNOWN = 128
"""Exit code of a start that failed for a reason that is not the command's."""
PREFIX = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process: "
)
RUNTIME = PREFIX.removesuffix("unable to start container process: ")
_TOLD_BY_LXCFS = frozenset(
    "cpuinfo diskstats meminfo stat swaps uptime loadavg slabinfo net/dev sys/kernel/ns_last_pid "
    "sys/crypto/fips_enabled".split()
)
"""Files below /proc that others may stand for."""
_NOT_A_DIRECTORY = ": not a directory"
_MOUNT = re.compile(r'error mounting "/m\d+" to rootfs at "([^"]*)"')


def start_error(
    failure: AgentFailure, mounts: Sequence[MountState] = (), folder: str = ""
) -> HyperError:
    """Word a refused start as Docker does, so that clients find their exit codes 126 and 127.

    *mounts* are the container's: a guest knows only its own names of what is mounted. *folder* is
    where its first process was to begin, which dockerd makes itself.
    """
    detail = failure.detail or errno.errorcode.get(failure.errno, str(failure.errno))
    if failure.stage == Stage.USER:
        return InternalError(detail)  # dockerd looks users up itself, before its runtime
    if failure.stage == Stage.CWD and folder and detail.endswith(_NOT_A_DIRECTORY):
        return InternalError(f"Cannot mkdir: {folder} is not a directory")
    if failure.stage in (Stage.EXEC, Stage.EXEC_LOOKUP, Stage.CWD):
        sentence = detail
        if failure.stage in (Stage.EXEC, Stage.EXEC_LOOKUP):
            sentence = f"error during container init: {detail}"
        return InvalidParameter(f"{PREFIX}{sentence}")
    if failure.errno == errno.ENOSPC:
        return InternalError(f"{PREFIX}{detail}: no space left on device")
    if failure.stage == Stage.ROOT and (damaged := damaged_root(detail)):
        return InternalError(f"{PREFIX}{damaged}")
    if failure.stage == Stage.MOUNT:
        told = _on_the_host(detail, mounts)
        kind = InvalidParameter if failure.errno == errno.ENOTDIR else InternalError
        return kind(f"{PREFIX}error during container init: {told}")
    if failure.stage == Stage.RLIMIT:
        return InternalError(
            f"{PREFIX}error during container init: error setting rlimits for ready process: "
            f"{detail}"
        )
    if failure.stage == Stage.SYSCTL and "is not in a separate kernel namespace" in detail:
        return InternalError(f"{RUNTIME}{detail}")
    if failure.stage == Stage.SYSCTL:
        told = detail.replace("open /proc/", "write /proc/", 1)
        return InternalError(f"{PREFIX}error during container init: {told}")
    stage = Stage(failure.stage).name.lower() if failure.stage in list(Stage) else "guest"
    return InternalError(f"{PREFIX}{stage}: {detail}")


def check_targets(mounts: Iterable[tuple[str, str]]) -> None:
    """Refuse mounts, given by source and target, that would hide what the kernel tells in /proc.

    Raises InternalError in runc's words (``checkProcMount``).
    """
    for source, target in mounts:
        inside = target.removeprefix("/proc/")
        if target == "/proc":
            reason = "it is not of type proc"
        elif inside != target and inside not in _TOLD_BY_LXCFS:
            reason = "it is inside /proc"
        else:
            continue
        raise InternalError(
            f'{PREFIX}error during container init: error mounting "{source}" to rootfs at '
            f'"{target}": "{target}" cannot be mounted because {reason}'
        )


def _on_the_host(detail: str, mounts: Sequence[MountState]) -> str:
    match = _MOUNT.match(detail)
    if match is None:
        return detail
    target = match[1]
    source = next((m.source for m in mounts if m.destination == target and m.source), "")
    reason = detail[match.end() :].removeprefix(": ")
    if reason.endswith(_NOT_A_DIRECTORY):  # runc gives its advice after the kernel's word
        advice = reason.removesuffix(_NOT_A_DIRECTORY)
        reason = f"mount {source}:{target}, flags: 0x5000{_NOT_A_DIRECTORY}: {advice}"
    return f'error mounting "{source}" to rootfs at "{target}": {reason}'


def damaged_root(detail: str) -> str:
    """Say what to do if the guest could not mount a layer or the disk; empty if it was not that."""
    if detail.startswith("mounting layer "):
        return f"a layer of the image is damaged ({detail}); remove the image and pull it again"
    if detail.startswith("mounting disk "):
        return (
            f"the container's disk is damaged ({detail}); remove the container and create it again"
        )
    return ""


def exit_code_of(error: HyperError) -> int:
    """Return the exit code that a failed start leaves, as moby derives it from the sentence."""
    text = error.message.lower()
    if PREFIX.lower() not in text:
        return UNKNOWN
    if "executable file not found" in text or "no such file or directory" in text:
        return 127
    if "not a directory" in text:
        return 127
    if "permission denied" in text or "is a directory" in text or "exec format error" in text:
        return 126
    return UNKNOWN
