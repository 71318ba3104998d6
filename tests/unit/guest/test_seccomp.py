from __future__ import annotations

import contextlib
import errno
import json
import struct
import subprocess
import sys
import tempfile
import time

import pyseccomp
import pytest

from hyperstack.errors import InvalidParameter
from hyperstack.guest import caps, seccomp
from hyperstack.guest.seccomp import compile_profile

DEFAULT = caps.names(caps.DEFAULT_CAPS)
ALL = caps.names(caps.ALL_CAPS)
ALLOW, ENOSYS = int(pyseccomp.ALLOW), int(pyseccomp.ERRNO(errno.ENOSYS))
EPERM = int(pyseccomp.ERRNO(errno.EPERM))
X86_64, X86 = int(pyseccomp.Arch.X86_64), int(pyseccomp.Arch.X86)
X32_BIT = 0x40000000

# Loads a filter, makes system calls, prints what each answered. "i386" goes by int 0x80.
CHILD = """
import ctypes, json, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
program = open(sys.argv[1], "rb").read()
buffer = ctypes.create_string_buffer(program)
header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
# push rbx; mov eax, edi; mov ebx, esi; mov ecx, edx; int 0x80; pop rbx; ret
code.write(bytes.fromhex("5389f889f389d1cd805bc3"))
entry = ctypes.addressof(ctypes.c_char.from_buffer(code))
old = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)(entry)
answers = []
assert libc.syscall(317, 1, 0, header) == 0, os.strerror(ctypes.get_errno())
for kind, number, *arguments in json.loads(sys.argv[2]):
    if kind == "i386":
        answers.append(old(number, *(arguments + [0, 0])[:2]))
        continue
    ctypes.set_errno(0)
    made = [ctypes.c_ulong(argument) for argument in arguments]
    result = libc.syscall(ctypes.c_long(number), *made)
    answers.append(-ctypes.get_errno() if result < 0 else 0)
print(json.dumps(answers))
"""


def run_under(program: bytes, calls: list[list[object]]) -> list[int]:
    """Make calls in a process that the filter holds: 0 or -errno for each."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(program)
        file.flush()
        command = [sys.executable, "-I", "-c", CHILD, file.name, json.dumps(calls)]
        done = subprocess.run(command, capture_output=True, check=False, timeout=30)
    assert done.returncode == 0, (done.returncode, done.stderr)
    answers: list[int] = json.loads(done.stdout)
    return answers


def verdict(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """Run a BPF program as the kernel would (linux/filter.h, what seccomp allows of it)."""
    data = struct.pack("=iIQ6Q", _signed(number), arch, 0, *(*arguments, *[0] * 6)[:6])
    accumulator, at = 0, 0
    while True:
        code, jt, jf, k = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            at += k
        elif code == 0x06:
            return int(k)
        else:
            taken = {
                0x15: accumulator == k,
                0x25: accumulator > k,
                0x35: accumulator >= k,
                0x45: bool(accumulator & k),
            }[code]
            at += jt if taken else jf


def _signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number


def nr(name: str, arch: int = X86_64) -> int:
    number = int(pyseccomp.resolve_syscall(arch, name))
    assert number >= 0, name
    return number


def profile(**keys: object) -> str:
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", **keys})


def refuse(*names: str, **keys: object) -> dict[str, object]:
    return {"names": list(names), "action": "SCMP_ACT_ERRNO", **keys}


def test_a_process_under_the_default_filter_does_ordinary_things_and_no_others() -> None:
    answers = run_under(
        compile_profile(None, DEFAULT),
        [
            ["x64", nr("getpid")],
            ["x64", nr("unshare"), 0x10000000],
            ["x64", nr("mount"), 0, 0, 0, 0, 0],
            ["x64", nr("clone3"), 0, 0],
            ["x64", nr("clone"), 0x10000000, 0],
            ["x64", nr("keyctl"), 0],
            ["x64", nr("io_uring_setup"), 1, 0],
            ["x64", nr("bpf"), 0, 0, 0],
            ["x64", nr("socket"), 40, 1, 0],
            ["x64", nr("socket"), 1, 1, 0],
            ["x64", nr("personality"), 0xFFFFFFFF],
            ["x64", nr("personality"), 0x0040000],
            ["x64", nr("kexec_load"), 0, 0, 0, 0],
            ["x64", 460, 0, 0, 0, 0],
            ["x64", 470, 0],
        ],
    )
    no = -errno.EPERM
    assert answers == [
        0,
        no,
        no,
        -errno.ENOSYS,
        no,
        no,
        no,
        no,
        no,
        0,
        0,
        no,
        no,
        no,
        -errno.ENOSYS,
    ]


def test_calls_by_the_32_bit_door_are_filtered_too() -> None:
    program = compile_profile(None, DEFAULT)
    getpid, unshare = nr("getpid", X86), nr("unshare", X86)
    answers = run_under(program, [["i386", getpid], ["i386", unshare, 0x10000000], ["i386", 470]])
    if answers[0] == -errno.ENOSYS:
        pytest.skip("this kernel answers no 32-bit calls")
    assert answers[0] > 0
    assert answers[1:] == [-errno.EPERM, -errno.ENOSYS]


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "setns"),
        ("CAP_SYS_ADMIN", "clone3"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_SYS_MODULE", "finit_module"),
        ("CAP_SYS_PTRACE", "kcmp"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_SYS_NICE", "mbind"),
    ],
)
def test_a_capability_opens_its_calls_and_its_lack_closes_them(capability: str, call: str) -> None:
    without = tuple(name for name in DEFAULT if name != capability)
    expected = ENOSYS if call == "clone3" else EPERM
    assert verdict(compile_profile(None, without), X86_64, nr(call)) == expected
    assert verdict(compile_profile(None, (*without, capability)), X86_64, nr(call)) == ALLOW


def test_no_capability_opens_what_docker_never_allows() -> None:
    program = compile_profile(None, ALL)
    for name in ("keyctl", "add_key", "userfaultfd", "kexec_load", "swapon", "pivot_root",
                 "io_uring_setup", "nfsservctl", "move_pages"):  # fmt: skip
        assert verdict(program, X86_64, nr(name)) == EPERM, name


def test_every_allowed_name_is_allowed_on_its_architecture() -> None:
    program = compile_profile(None, DEFAULT)
    rules = json.loads(seccomp._DEFAULT.read_text())["syscalls"]
    for arch in (X86_64, X86):
        for name in rules[0]["names"]:
            number = int(pyseccomp.resolve_syscall(arch, name))
            if number >= 0:
                assert verdict(program, arch, number) == ALLOW, (name, arch)


def test_newer_calls_have_their_own_numbers_on_x32() -> None:
    program = compile_profile(None, DEFAULT)
    assert verdict(program, X86_64, 462) == ALLOW
    assert verdict(program, X86_64, 462 | X32_BIT) == ALLOW
    assert verdict(program, X86_64, 461) == EPERM
    assert verdict(program, X86_64, 335) == ALLOW
    # uretprobe: this one libseccomp 2.6 knows.
    known = int(pyseccomp.resolve_syscall(X86_64, "uretprobe")) == 335
    assert verdict(program, X86_64, 335 | X32_BIT) == (ALLOW if known else EPERM)
    assert verdict(program, X86, 462) == ALLOW
    assert verdict(program, X86_64, 467) == ENOSYS
    # x32 has old calls of its own up to 547.
    assert verdict(program, X86_64, 548 | X32_BIT) == ENOSYS
    assert verdict(program, X86, 467) == ENOSYS


def test_the_argument_of_clone_is_checked_for_every_namespace_flag() -> None:
    program = compile_profile(None, DEFAULT)
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(program, X86_64, nr("clone"), flag | 17) == EPERM, hex(flag)
        assert verdict(program, X86, nr("clone", X86), flag | 17) == EPERM, hex(flag)
    assert verdict(program, X86_64, nr("clone"), 0x3D0F00) == ALLOW


def test_a_foreign_architecture_is_not_answered() -> None:
    assert verdict(compile_profile(None, DEFAULT), int(pyseccomp.Arch.AARCH64), 0) == 0


def test_the_default_profile_compiles_fast_and_fits_the_kernel() -> None:
    compile_profile(None, DEFAULT)
    started = time.process_time()
    program = compile_profile(None, DEFAULT)
    assert time.process_time() - started < 0.1
    assert len(program) // 8 < seccomp.MAX_INSTRUCTIONS


def test_a_profile_that_says_nothing_is_no_filter() -> None:
    assert compile_profile("{}", DEFAULT) == b""
    assert compile_profile('{"syscalls": null}', DEFAULT) == b""


def test_a_custom_profile_refuses_with_its_own_error() -> None:
    text = profile(syscalls=[refuse("mkdir", "chmod"), refuse("getppid", errnoRet=61)])
    calls: list[list[object]] = [["x64", nr("chmod"), 0, 0], ["x64", nr("getppid")]]
    assert run_under(compile_profile(text, DEFAULT), calls) == [-errno.EPERM, -61]


def test_the_default_error_may_be_another() -> None:
    text = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"name": "read", "action": "SCMP_ACT_ALLOW", "args": None}],
        }
    )
    program = compile_profile(text, DEFAULT)
    assert verdict(program, X86_64, nr("read")) == ALLOW
    assert verdict(program, X86_64, nr("write")) == ENOSYS


def test_conditions_on_different_arguments_all_hold_and_on_one_argument_any_holds() -> None:
    def args(*pairs: tuple[int, str, int]) -> list[dict[str, object]]:
        return [{"index": i, "op": f"SCMP_CMP_{op}", "value": v} for i, op, v in pairs]

    both = profile(syscalls=[refuse("kill", args=args((0, "EQ", 5), (1, "GT", 9)))])
    program = compile_profile(both, DEFAULT)
    assert verdict(program, X86_64, nr("kill"), 5, 10) == EPERM
    assert verdict(program, X86_64, nr("kill"), 5, 9) == ALLOW
    either = profile(syscalls=[refuse("kill", args=args((0, "EQ", 5), (0, "EQ", 6)))])
    program = compile_profile(either, DEFAULT)
    assert [verdict(program, X86_64, nr("kill"), pid) for pid in (4, 5, 6)] == [ALLOW, EPERM, EPERM]


def test_rules_are_chosen_by_capability_architecture_and_kernel() -> None:
    text = profile(
        syscalls=[
            refuse("mkdir", includes={"caps": ["CAP_KILL", "CAP_BPF"]}),
            refuse("rmdir", includes={"arches": ["s390x"]}),
            refuse("rename", excludes={"arches": ["amd64"]}),
            refuse("chmod", includes={"minKernel": "99.0"}),
            refuse("chown", includes={"minKernel": "4.8"}),
            refuse("link", excludes={"caps": ["CAP_KILL"]}),
            refuse("symlink", excludes={"minKernel": "4.8"}),
        ]
    )
    program = compile_profile(text, ("CAP_KILL",))
    refused = [
        name
        for name in ("mkdir", "rmdir", "rename", "chmod", "chown", "link", "symlink")
        if verdict(program, X86_64, nr(name)) != ALLOW
    ]
    assert refused == ["chown"]


def test_unknown_names_are_passed_over_as_runc_does() -> None:
    program = compile_profile(profile(syscalls=[refuse("no_such_call", "mkdir", "é")]), DEFAULT)
    assert verdict(program, X86_64, nr("mkdir")) == EPERM


def test_a_rule_that_repeats_the_default_is_harmless() -> None:
    text = profile(syscalls=[{"names": ["read"], "action": "SCMP_ACT_ALLOW"}, refuse("mkdir")])
    assert verdict(compile_profile(text, DEFAULT), X86_64, nr("mkdir")) == EPERM


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Decoding seccomp profile failed: unexpected end of JSON input"),
        ("/etc/x", "Decoding seccomp profile failed: invalid character '/' looking for beginning"),
        ('{"syscalls": 3}', "Decoding seccomp profile failed: json: cannot unmarshal"),
        ("[1]", "Decoding seccomp profile failed"),
        (profile(syscalls=[refuse("a", action="X")]), "string X is not a valid action for seccomp"),
        (profile(architectures=["X"]), "string X is not a valid arch for seccomp"),
        (profile(flags=["X"]), 'seccomp flag "X" not known'),
        (
            profile(syscalls=[refuse("a", args=[{"index": 0, "op": "X", "value": 1}])]),
            "string X is not a valid operator for seccomp",
        ),
        (
            profile(syscalls=[refuse("a", args=[{"index": 6, "op": "SCMP_CMP_EQ"}])]),
            "index must be between 0 and 5",
        ),
        (
            profile(syscalls=[refuse("a", args=[{"op": "SCMP_CMP_EQ", "value": -1}])]),
            "cannot unmarshal number",
        ),
        (profile(syscalls=[refuse("a", name="b")]), "both 'name' and 'names' are specified"),
        (
            profile(architectures=["SCMP_ARCH_X86"], archMap=[{"architecture": "X"}]),
            "both 'architectures' and 'archMap' are specified",
        ),
        (profile(syscalls=[refuse("a", includes={"minKernel": "x"})]), "invalid kernel version"),
        ('{"defaultAction": "SCMP_ACT_NOTIFY"}', "SCMP_ACT_NOTIFY needs a listener"),
        (profile(syscalls=[refuse("a", errnoRet=1 << 40)]), "out of range"),
        (
            profile(syscalls=[refuse("a"), {"names": ["mkdir"], "action": "SCMP_ACT_KILL"},
                              refuse("mkdir")]),
            "error adding seccomp rule for syscall mkdir",
        ),
        ("[" * 100_000, "Decoding seccomp profile failed"),
        ("{" + " " * (1 << 20) + "}", "longer than"),
        (profile(syscalls=[refuse(*["read"] * 20_000)]), "more than 16384 system calls"),
    ],
)  # fmt: skip
def test_a_bad_profile_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        compile_profile(text, DEFAULT)
    assert words in caught.value.message


def test_the_largest_profile_is_compiled_or_refused_in_bounded_time() -> None:
    conditions = [
        [{"index": i % 6, "op": "SCMP_CMP_EQ", "value": i * 1_000_003}]
        for i in range(seccomp.MAX_CONDITIONS)
    ]
    text = profile(
        archMap=[{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        syscalls=[refuse("kill", args=args) for args in conditions],
    )
    started = time.process_time()
    with contextlib.suppress(InvalidParameter):
        assert len(compile_profile(text, DEFAULT)) // 8 <= seccomp.MAX_INSTRUCTIONS
    assert time.process_time() - started < 3


def test_the_kernel_loads_what_was_compiled_for_every_set_of_capabilities() -> None:
    for names in (DEFAULT, ALL, ()):
        assert run_under(compile_profile(None, names), [["x64", nr("getpid")]]) == [0]
