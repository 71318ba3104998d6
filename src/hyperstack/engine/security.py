"""``--security-opt``: which options there are, and what a guest's kernel makes of them.

The sentences are those of moby's ``parseSecurityOpt`` (``daemon/daemon_unix.go``); dockerd answers
them with 500. AppArmor and SELinux confine nothing in a guest, so their options are dropped as on
any host without them, but not in silence.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.model import HostConfig

_BOOLEANS = ("1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False")
"""What Go's ``strconv.ParseBool`` takes."""
TRUE = _BOOLEANS[:6]


def split(option: str) -> tuple[str, str, bool]:
    """Return an option's name and value, and whether it has one (``=``, or ``:`` of old)."""
    separator = "=" if "=" in option else ":"
    name, found, value = option.partition(separator)
    return name, value, bool(found)


def check(host: HostConfig) -> Iterator[str]:
    """Yield warnings. Raises InternalError for what is no option."""
    for option in host.security_opt:
        yield from _check(option)


def _check(option: str) -> Iterator[str]:
    if option in ("no-new-privileges", "disable"):
        return
    name, value, given = split(option)
    if not given:
        raise InternalError(f'invalid --security-opt 1: "{option}"')
    if name in ("no-new-privileges", "writable-cgroups"):
        if value not in _BOOLEANS:
            raise InternalError(f'invalid --security-opt 2: "{option}"')
        if name == "writable-cgroups" and value in TRUE:
            raise InvalidParameter(f"not supported by this engine: --security-opt {option}")
    elif name == "apparmor":
        if value not in ("unconfined", ""):
            yield f"AppArmor is not in force in a guest. Profile {value} discarded."
    elif name == "label":
        if value != "disable":
            yield f"SELinux is not in force in a guest. Label {value} discarded."
    elif name != "seccomp":
        raise InternalError(f'invalid --security-opt 2: "{option}"')


def no_new_privileges(host: HostConfig) -> bool:
    """Tell whether ``no-new-privileges`` was asked for; the last one that says counts."""
    answer = False
    for option in host.security_opt:
        name, value, given = split(option)
        if name == "no-new-privileges":
            answer = not given or value in TRUE
    return answer


def labels_off(host: HostConfig) -> tuple[str, ...]:
    """Return what moby adds to the options of a container that shares with its host."""
    if host.privileged or "host" in (host.ipc_mode, host.pid_mode):
        return ("label=disable",)
    return ()
