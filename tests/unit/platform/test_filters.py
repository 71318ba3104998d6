"""The jailed programs' filters, run over calls as the kernel would."""

from __future__ import annotations

import errno

import pyseccomp
import pytest

from hyperstack.platform.filters import Program, compile_filter, filter_file
from tests.unit.guest.test_seccomp import ALLOW, EPERM, X86_64, nr, verdict

TRAPPED = int(pyseccomp.KILL)


@pytest.mark.parametrize("program", list(Program), ids=str)
def test_a_filter_fits_the_kernel_and_is_compiled_once(program: Program) -> None:
    made = compile_filter(program)
    assert len(made) % 8 == 0
    assert 50 < len(made) // 8 < 1000
    assert compile_filter(program) is made
    assert filter_file(program).fd == filter_file(program).fd


@pytest.mark.parametrize("program", list(Program), ids=str)
def test_every_name_is_known_to_the_library_and_allowed(program: Program) -> None:
    made = compile_filter(program)
    for name in program.names():
        assert verdict(made, X86_64, nr(name)) == ALLOW, name


@pytest.mark.parametrize("program", list(Program), ids=str)
def test_arguments_are_looked_at(program: Program) -> None:
    made = compile_filter(program)

    def answer(name: str, *arguments: int) -> int:
        return verdict(made, X86_64, nr(name), *arguments)

    assert answer("clone", 0x10000000 | 17) == EPERM
    assert answer("clone", 0x3D0F00) == ALLOW
    assert answer("clone3") == int(pyseccomp.ERRNO(errno.ENOSYS))
    assert answer("personality", 0x0400000) == EPERM
    assert answer("prctl", 38, 1) == ALLOW
    assert answer("prctl", 28, 1) == EPERM
    assert (answer("socket", 2, 1) == ALLOW) == (program == Program.GIT)
    assert answer("socket", 16, 3) == EPERM
    assert (answer("socket", 1, 1) == ALLOW) == (program != Program.MKFS_EROFS)
    assert answer("prlimit64", 0, 4, 0, 1) == ALLOW
    assert answer("prlimit64", 0, 4, 1, 0) == EPERM
    assert answer("prlimit64", 0, 7, 1, 0) == ALLOW
    assert answer("prlimit64", 99, 7, 1, 0) == EPERM
    for name in ("setrlimit", "open_by_handle_at", "keyctl", "bpf", "mount", "io_uring_setup"):
        assert answer(name) == EPERM, name


@pytest.mark.parametrize("program", list(Program), ids=str)
def test_requests_that_act_on_terminals_are_refused_in_any_disguise(program: Program) -> None:
    made = compile_filter(program)
    for request in (0x5412, 0x541C, 0x540E, 0x5415, 0x541D):
        for upper in (0, 1 << 32, 1 << 63, 0xFFFFFFFF << 32):
            assert verdict(made, X86_64, nr("ioctl"), 0, request | upper) == EPERM, hex(request)
    assert verdict(made, X86_64, nr("ioctl"), 0, 0x5401) == ALLOW


def test_only_machines_reach_tun_and_only_qemu_kvm() -> None:
    tun, kvm = 0x400454CA, 0xAE80
    reached = {
        program: [
            verdict(compile_filter(program), X86_64, nr("ioctl"), 0, request) == ALLOW
            for request in (tun, kvm)
        ]
        for program in Program
    }
    assert reached == {
        Program.UML: [True, False],
        Program.QEMU: [True, True],
        Program.MKFS_EROFS: [False, False],
        Program.VIRTIOFSD: [False, False],
        Program.GIT: [False, False],
    }


def test_qemu_changes_no_names_and_reaches_no_devices_but_its_own() -> None:
    made = compile_filter(Program.QEMU)
    for name in (
        *("unlink", "unlinkat", "rename", "mkdir", "mknod", "link", "symlink", "chmod", "fchmod"),
        *("chown", "truncate", "bind", "getdents64", "setsid", "mlock", "setpriority", "tkill"),
        *("personality", "copy_file_range", "io_submit", "process_vm_readv", "ptrace", "execveat"),
    ):
        assert verdict(made, X86_64, nr(name)) == EPERM, name
    for request in (0x40086602, 0x4008AF00, 0x1277, 0x40049409, 0x5401 | 0x1200):
        assert verdict(made, X86_64, nr("ioctl"), 0, request) == EPERM, hex(request)


@pytest.mark.parametrize("program", [Program.UML, Program.MKFS_EROFS, Program.GIT], ids=str)
def test_no_setuid_file_comes_of_who_may_change_modes(program: Program) -> None:
    made = compile_filter(program)
    for name in ("chmod", "fchmod"):
        assert verdict(made, X86_64, nr(name), 0, 0o755) == ALLOW
        for bit in (0o4000, 0o2000):
            assert verdict(made, X86_64, nr(name), 0, 0o755 | bit) == EPERM


def test_a_kernel_that_panics_cannot_send_itself_abort() -> None:
    made = compile_filter(Program.UML)
    assert verdict(made, X86_64, nr("kill"), 1, 6) == EPERM
    assert verdict(made, X86_64, nr("kill"), 1, 9) == ALLOW


def test_other_tables_of_calls_end_the_caller() -> None:
    made = compile_filter(Program.UML)
    assert verdict(made, int(pyseccomp.Arch.X86), 20) == TRAPPED
    assert verdict(made, X86_64, 0x40000000 | 39) == TRAPPED
