"""What a guest's agent takes in one message: refused here with a sentence, before it travels.

The agent ends the connection of a daemon that sends it more (``native/agent/spec.c`` and
``spec_parts.c``). Most bounds are the kernel's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from hyperstack.engine.refusals import PREFIX
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.guest import messages

TEXT = 128 << 10
"""Bytes of one argument or variable with its NUL: MAX_ARG_STRLEN of execve(2)."""
TEXTS = 128 << 10
"""Arguments, or variables."""
PATH = 4095
NAME = 255
HOSTNAME = 64
"""Bytes that Linux takes as a host's name (__NEW_UTS_LEN)."""
DATA = 4000
"""Bytes of mount options, or of a sysctl's value."""
GROUPS, MOUNTS, SYSCTLS, DEVICES, PATHS = 1024, 512, 256, 256, 256


def check_process(process: messages.Process) -> None:
    """Raise InvalidParameter unless the agent takes *process*."""
    for texts in (process.argv, process.env):
        if len(texts) > TEXTS or any(_size(text) >= TEXT for text in texts):
            raise InvalidParameter(
                f'{PREFIX}error during container init: exec: "{process.argv[0][:100]}": '
                "argument list too long"
            )
    _text("working directory", process.cwd, PATH)
    _text("user", process.user, NAME)
    _count("additional groups", process.groups, GROUPS)
    for limit in process.rlimits:
        if min(limit.soft, limit.hard) < -1 or 0 <= limit.hard < (limit.soft % (1 << 64)):
            raise InternalError(
                f"{PREFIX}error during container init: error setting rlimits for ready process: "
                f"error setting rlimit type {limit.resource}: invalid argument"
            )
    for group in process.groups:
        _text("group", group, NAME)


def check_container(container: messages.Container) -> None:
    """Raise InvalidParameter unless the agent takes *container*."""
    if _size(container.hostname) > HOSTNAME:
        raise InternalError(f"{PREFIX}error during container init: sethostname: invalid argument")
    _text("domain name", container.domainname, NAME)
    _count("mounts", container.mounts, MOUNTS)
    for mount in container.mounts:
        _text("mount target", mount.target, PATH)
        _text("mount options", mount.data, DATA)
    _count("sysctls", container.sysctls, SYSCTLS)
    for sysctl in container.sysctls:
        _text("sysctl name", sysctl.name, NAME)
        _text("sysctl value", sysctl.value, DATA)
    _count("devices", container.devices, DEVICES)
    for paths in (container.masked_paths, container.readonly_paths):
        _count("masked or read-only paths", paths, PATHS)
        for path in paths:
            _text("masked or read-only path", path, PATH)
    if container.process is not None:
        check_process(container.process)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def _text(what: str, text: str, most: int) -> None:
    if _size(text) > most:
        raise InvalidParameter(f"{what} {text[:60]}... is too long: it has more than {most} bytes")


def _count(what: str, items: Sequence[object], most: int) -> None:
    if len(items) > most:
        raise InvalidParameter(f"a container can't have more than {most} {what}, not {len(items)}")
