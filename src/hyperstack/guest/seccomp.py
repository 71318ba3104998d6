"""System call filters of containers: Docker's seccomp profiles as BPF for the guest's kernel.

The profile format is that of Docker (``docs.docker.com/engine/security/seccomp``): the OCI runtime
specification's ``linux.seccomp`` plus ``archMap``, ``includes`` and ``excludes``. The default
profile, ``seccomp_default.json``, allows what Docker Engine 28's allows. Rules become BPF through
libseccomp, as runc does it, including its answer ENOSYS to system calls newer than the profile
(see ``seccomp_stub``). The agent only loads the result.
"""

from __future__ import annotations

import errno
import functools
import platform
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyseccomp

from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.guest import seccomp_stub

GUEST_KERNEL = (6, 12)
"""The oldest kernel that a kit's guests run: what ``minKernel`` is compared with."""
MAX_PROFILE = 1 << 20
MAX_NAMES = 16_384
MAX_CONDITIONS = 512
"""Rules with conditions: what libseccomp takes for each grows with their number."""
MAX_INSTRUCTIONS = 4096
"""BPF_MAXINSNS of linux/bpf_common.h: the kernel takes no longer program."""

_DEFAULT = Path(__file__).with_name("seccomp_default.json")
_GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
_NATIVE = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}
_ARCHES = (
    "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64"
    " PPC64LE S390 S390X PARISC PARISC64 RISCV64"
).split()
_FLAGS = (
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
)
_ACTIONS = {
    "SCMP_ACT_KILL": pyseccomp.KILL,
    "SCMP_ACT_KILL_THREAD": pyseccomp.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": pyseccomp.KILL_PROCESS,
    "SCMP_ACT_TRAP": pyseccomp.TRAP,
    "SCMP_ACT_LOG": pyseccomp.LOG,
    "SCMP_ACT_ALLOW": pyseccomp.ALLOW,
}
_WITH_ERRNO = {"SCMP_ACT_ERRNO": pyseccomp.ERRNO, "SCMP_ACT_TRACE": pyseccomp.TRACE}
_OPERATORS = {
    "SCMP_CMP_NE": pyseccomp.NE,
    "SCMP_CMP_LT": pyseccomp.LT,
    "SCMP_CMP_LE": pyseccomp.LE,
    "SCMP_CMP_EQ": pyseccomp.EQ,
    "SCMP_CMP_GE": pyseccomp.GE,
    "SCMP_CMP_GT": pyseccomp.GT,
    "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ,
}


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """What an argument must be; for ``MASKED_EQ`` *value* is the mask and *value_two* wanted."""

    index: int = 0
    value: int = 0
    value_two: int = 0
    op: str = ""


class Filter(msgspec.Struct, frozen=True, rename="camel"):
    """When a rule is for a container: all of *caps* (of *excludes*: any), one of *arches*."""

    caps: tuple[str, ...] | None = None
    arches: tuple[str, ...] | None = None
    min_kernel: str | None = None


class Rule(msgspec.Struct, frozen=True, rename="camel"):
    """One entry of ``syscalls``."""

    names: tuple[str, ...] | None = None
    name: str | None = None
    action: str = ""
    errno_ret: int | None = None
    args: tuple[Condition, ...] | None = None
    includes: Filter | None = None
    excludes: Filter | None = None


class ArchMap(msgspec.Struct, frozen=True, rename="camel"):
    """An architecture and those whose calls its kernel answers too."""

    architecture: str = ""
    sub_architectures: tuple[str, ...] | None = None


class Profile(msgspec.Struct, frozen=True, rename="camel"):
    """A profile as Docker's JSON has it."""

    default_action: str = ""
    default_errno_ret: int | None = None
    arch_map: tuple[ArchMap, ...] | None = None
    architectures: tuple[str, ...] | None = None
    flags: tuple[str, ...] | None = None
    syscalls: tuple[Rule, ...] | None = None


def compile_profile(profile: str | None, capability_names: tuple[str, ...]) -> bytes:
    """Return a profile as an array of sock_filter (seccomp(2)), empty for "no filter".

    *profile* is JSON, None means the default; *capability_names* is the container's bounding set
    (``CAP_...``). Raises InvalidParameter, in the words of Docker and runc.
    """
    decoded = _default() if profile is None else decode(profile)
    rules = decoded.syscalls or ()
    if not decoded.default_action and not rules:
        return b""
    arch = _GO_ARCH.get(platform.machine(), platform.machine())
    wanted = [rule for rule in rules if _applies(rule, frozenset(capability_names), arch)]
    try:
        program = _Compiler(decoded, arch).compile(wanted)
    except (OSError, RuntimeError) as error:
        raise InternalError(f"error adding seccomp rules: {error}") from error
    if len(program) // 8 > MAX_INSTRUCTIONS:
        raise InvalidParameter(
            f"the seccomp profile is too large: it needs {len(program) // 8} instructions and the"
            f" kernel takes {MAX_INSTRUCTIONS}"
        )
    return program


@functools.cache
def _default() -> Profile:
    return decode(_DEFAULT.read_text())


def decode(text: str) -> Profile:
    """Read and check a profile's JSON. Raises InvalidParameter."""
    if len(text) > MAX_PROFILE:
        raise _undecodable(f"it is longer than {MAX_PROFILE} bytes")
    try:
        profile = msgspec.json.decode(text, type=Profile)
    except msgspec.ValidationError as error:
        raise _undecodable(f"json: cannot unmarshal: {error}") from error
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise _undecodable(_go_words(text, str(error))) from error
    _check(profile)
    return profile


def _undecodable(reason: str) -> InvalidParameter:
    return InvalidParameter(f"Decoding seccomp profile failed: {reason}")


def _go_words(text: str, fallback: str) -> str:
    """Say what is wrong with JSON as Go does, where it is wrong from the first character."""
    stripped = text.strip()
    if not stripped or "truncated" in fallback:
        return "unexpected end of JSON input"
    if stripped[0] not in '{["-0123456789tfn':
        return f"invalid character {stripped[0]!r} looking for beginning of value"
    return fallback


def _check(profile: Profile) -> None:
    if profile.architectures and profile.arch_map:
        raise InvalidParameter(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either"
            " 'architectures' or 'archMap'"
        )
    rules = profile.syscalls or ()
    if not profile.default_action and not rules:
        return
    _action(profile.default_action, profile.default_errno_ret)
    for flag in profile.flags or ():
        if flag not in _FLAGS:
            raise InvalidParameter(f'seccomp flag "{flag}" not known')
    if sum(len(rule.names or ()) + 1 for rule in rules) > MAX_NAMES:
        raise InvalidParameter(f"the seccomp profile names more than {MAX_NAMES} system calls")
    if sum(len(rule.names or ()) or 1 for rule in rules if rule.args) > MAX_CONDITIONS:
        raise InvalidParameter(f"the seccomp profile has over {MAX_CONDITIONS} rules with args")
    for rule in rules:
        _check_rule(rule)


def _check_rule(rule: Rule) -> None:
    if rule.name and rule.names:
        raise InvalidParameter(
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or"
            " 'names'"
        )
    _action(rule.action, rule.errno_ret)
    if len(rule.args or ()) > 6:
        raise InvalidParameter("a seccomp rule has at most 6 args")
    for condition in rule.args or ():
        if condition.op not in _OPERATORS:
            raise InvalidParameter(f"string {condition.op} is not a valid operator for seccomp")
        if not 0 <= condition.index <= 5:
            raise InvalidParameter("Seccomp argument index must be between 0 and 5")
        if not (0 <= condition.value < 1 << 64 and 0 <= condition.value_two < 1 << 64):
            raise _undecodable("json: cannot unmarshal number into a value of type uint64")
    for one in (rule.includes, rule.excludes):
        if one is not None and one.min_kernel is not None:
            _kernel(one.min_kernel)


def _action(name: str, errno_ret: int | None) -> int:
    """Return libseccomp's number of an action; *errno_ret* None means EPERM, as for runc."""
    if name == "SCMP_ACT_NOTIFY":
        raise InvalidParameter("SCMP_ACT_NOTIFY needs a listener, which a guest does not have")
    if name in _WITH_ERRNO:
        number = errno.EPERM if errno_ret is None else errno_ret
        if not 0 <= number <= 0xFFFF:
            raise InvalidParameter(f"errnoRet {number} of the seccomp profile is out of range")
        return int(_WITH_ERRNO[name](number))
    if name not in _ACTIONS:
        raise InvalidParameter(f"string {name} is not a valid action for seccomp")
    return int(_ACTIONS[name])


def _kernel(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", text)
    if found is None or found.groups() == ("0", "0"):
        raise _undecodable(f'invalid kernel version: "{text[:32]}"')
    return int(found[1]), int(found[2])


def _applies(rule: Rule, capabilities: frozenset[str], arch: str) -> bool:
    """Tell whether a rule is meant for a container with these capabilities."""
    excludes, includes = rule.excludes, rule.includes
    if excludes is not None:
        if arch in (excludes.arches or ()) or capabilities & set(excludes.caps or ()):
            return False
        if excludes.min_kernel is not None and _kernel(excludes.min_kernel) <= GUEST_KERNEL:
            return False
    if includes is not None:
        if includes.arches and arch not in includes.arches:
            return False
        if not capabilities >= set(includes.caps or ()):
            return False
        if includes.min_kernel is not None and _kernel(includes.min_kernel) > GUEST_KERNEL:
            return False
    return True


class _Compiler:
    """Feeds a profile's rules to libseccomp and puts the stub before what that makes."""

    def __init__(self, profile: Profile, arch: str) -> None:
        self._default = _action(profile.default_action, profile.default_errno_ret)
        self._filter = pyseccomp.SyscallFilter(defaction=self._default)
        self._filter.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)
        self._arches = [pyseccomp.system_arch()]
        self._newer: dict[str, int] = {}
        self._plain: dict[int, int] = {}
        for name in _architectures(profile, arch):
            number = _arch_number(name)
            if number not in self._arches:
                self._arches.append(number)
                self._filter.add_arch(number)

    def compile(self, rules: list[Rule]) -> bytes:
        highest = dict.fromkeys(self._arches, -1)
        for rule in rules:
            action = _action(rule.action, rule.errno_ret)
            for name in rule.names or (rule.name or "",):
                self._note(name, highest)
                # libseccomp refuses a rule that says what the default says anyway.
                if action != self._default:
                    self._add(name, action, rule.args or ())
        return seccomp_stub.program(self._newer, highest, self._default) + self._export()

    def _note(self, name: str, highest: dict[int, int]) -> None:
        """Remember the highest number that the profile knows of each architecture."""
        for arch in self._arches:
            number = _resolve(arch, name)
            if number < 0:
                number = seccomp_stub.newer_number(arch, name)
            highest[arch] = max(highest[arch], number)

    def _add(self, name: str, action: int, conditions: tuple[Condition, ...]) -> None:
        number = _resolve(pyseccomp.Arch.NATIVE, name)
        if number == _UNKNOWN:
            # Newer than the library: the stub knows its number. Others can't exist in the guest
            # or can't be told apart by their arguments; runc passes over them too.
            if not conditions:
                self._newer.setdefault(name, action)
            return
        if not conditions:
            if self._plain.setdefault(number, action) == action:
                self._rule(name, action, number)
                return
            raise InvalidParameter(f"error adding seccomp rule for syscall {name}: file exists")
        for group in _groups(conditions):
            self._rule(name, action, number, *group)

    def _rule(self, name: str, action: int, number: int, *conditions: Condition) -> None:
        made = [pyseccomp.Arg(c.index, _OPERATORS[c.op], c.value, c.value_two) for c in conditions]
        try:
            self._filter.add_rule(action, number, *made)
        except OSError as error:
            raise InvalidParameter(
                f"error adding seccomp rule for syscall {name}: {(error.strerror or '').lower()}"
            ) from error

    def _export(self) -> bytes:
        with tempfile.TemporaryFile() as file:
            self._filter.export_bpf(file)
            file.seek(0)
            return file.read()


def _architectures(profile: Profile, arch: str) -> Iterator[str]:
    yield from profile.architectures or ()
    for entry in profile.arch_map or ():
        if entry.architecture == _NATIVE.get(arch):
            yield entry.architecture
            yield from entry.sub_architectures or ()
            return


def _arch_number(name: str) -> int:
    short = name.removeprefix("SCMP_ARCH_")
    if short == name or short not in _ARCHES:
        raise InvalidParameter(f"string {name} is not a valid arch for seccomp")
    return int(getattr(pyseccomp.Arch, short))


def _groups(conditions: tuple[Condition, ...]) -> Iterator[tuple[Condition, ...]]:
    """Yield sets of conditions that hold together; any of the sets is enough.

    libseccomp takes one condition per argument: with two of one argument each condition becomes a
    rule of its own, as with runc.
    """
    if len({condition.index for condition in conditions}) == len(conditions):
        yield conditions
    else:
        for condition in conditions:
            yield (condition,)


_UNKNOWN = -1


@functools.lru_cache(maxsize=4096)
def _resolve(arch: int, name: str) -> int:
    """Return a call's number; other negative ones than -1 are libseccomp's for foreign calls."""
    try:
        return int(pyseccomp.resolve_syscall(arch, name))
    except (ValueError, UnicodeEncodeError):
        return _UNKNOWN
