"""System call filters of jailed programs: allow lists by program, compiled by libseccomp.

Everything not named fails with EPERM (not a kill: User Mode Linux in seccomp mode needs its own
SIGSYS trap to win). ``clone3`` answers ENOSYS because its flags can't be looked at; libc then uses
``clone``, whose flags are checked so that no jailed program makes a namespace.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import tempfile
from enum import StrEnum

import pyseccomp

from hyperstack.errors import InternalError

CLONE_NEW = 0x7E020080
"""All CLONE_NEW* bits of clone(2), CLONE_NEWTIME among them."""
ADDR_NO_RANDOMIZE = 0x0040000
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
SOCK_STREAM, SOCK_DGRAM, _KIND = 1, 2, 0xF
RLIMIT_STACK, RLIMIT_NOFILE = 3, 7
_SPECIAL = 0o7000
"""The setuid, setgid and sticky bits of a mode."""
_WHOLE = 0xFFFFFFFF
"""An ioctl's request has 32 bits, its register 64: the kernel doesn't look at the upper half."""


class Program(StrEnum):
    """A program that is jailed; names its allow list."""

    UML = "uml"
    QEMU = "qemu"
    MKFS_EROFS = "mkfs.erofs"
    VIRTIOFSD = "virtiofsd"
    GIT = "git"
    """With what it starts: its helpers, the shell of its scripts, ssh, tar."""

    def names(self) -> frozenset[str]:
        """Return the system calls that the program may use."""
        return frozenset(_LISTS[self].split())


_BASE = """
access arch_prctl brk clock_getres clock_gettime clock_nanosleep close close_range dup dup2 dup3
execve exit exit_group faccessat faccessat2 fadvise64 fallocate fcntl fdatasync flock fstat fstatfs
fsync ftruncate futex getcwd getdents64 getegid geteuid getgid getgroups getitimer getpgid getpgrp
getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage gettid gettimeofday
getuid lseek lstat madvise membarrier mmap mprotect mremap munmap nanosleep newfstatat open openat
pipe pipe2 poll ppoll pread64 preadv preadv2 pselect6 pwrite64 pwritev pwritev2 read
readlink readlinkat readv restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_getaffinity sched_getparam
sched_getscheduler sched_setaffinity sched_yield select set_robust_list set_tid_address sigaltstack
stat statfs statx sysinfo tgkill time umask uname unlink unlinkat wait4 waitid write writev
"""

_EVENTS = """
epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 signalfd
signalfd4 timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
timerfd_gettime timerfd_settime
"""

_SOCKETS = """
accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg
sendmmsg sendmsg sendto setsockopt shutdown socketpair
"""

# What the kernel's binary imports from libc or calls by itself, and what libc's start, threads and
# loader need; not what it would serve consoles, ports and copy-on-write files with.
_UML = """
access arch_prctl bind brk clock_gettime clock_nanosleep close close_range connect dup dup2
epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 execve execveat exit exit_group
fallocate fcntl fdatasync fstat fstatfs fsync ftruncate futex getcwd getdents64 getegid geteuid
getgid getpgrp getpid getppid getrandom getrlimit gettid gettimeofday getuid lseek lstat madvise
memfd_create mkdir mmap mprotect mremap munmap nanosleep newfstatat open openat pipe2 poll ppoll
pread64 ptrace pwrite64 read readlink readv recvfrom recvmmsg recvmsg restart_syscall rmdir rseq
rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend sched_yield seccomp sendmmsg
sendmsg sendto set_robust_list set_tid_address setsid setsockopt sigaltstack signalfd4 socketpair
stat statfs statx tgkill timer_create timer_delete timer_settime uname unlink utimensat wait4 write
writev
"""

# What whole lives of emulated machines were seen to call (disks, discard, cards, a share, hot plug,
# memory, pause, power off), with the other halves of such calls, and what libc and KVM's signals
# need: no name of a file is made, changed or removed, no socket is given a name.
_QEMU = """
accept4 access arch_prctl brk clock_getres clock_gettime clock_nanosleep close close_range connect
dup dup2 dup3 epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 execve exit exit_group
fallocate fcntl fdatasync fstat fstatfs fsync ftruncate futex getcwd getegid geteuid getgid
getpeername getpid getppid getrandom getrlimit getrusage getsockname getsockopt gettid gettimeofday
getuid kill listen lseek lstat madvise membarrier memfd_create mmap mprotect mremap munmap nanosleep
newfstatat open openat pipe2 poll ppoll pread64 preadv pwrite64 pwritev read readlink readv recvfrom
recvmsg restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend
rt_sigtimedwait sched_getaffinity sched_yield seccomp sendmsg sendto set_robust_list
set_tid_address setsockopt shutdown sigaltstack signalfd4 socketpair stat statfs statx sysinfo
tgkill timer_create timer_delete timer_settime uname wait4 write writev
"""

_LISTS = {
    Program.UML: _UML,
    Program.QEMU: _QEMU,
    Program.MKFS_EROFS: _BASE + " copy_file_range rename sendfile truncate kill",
    Program.VIRTIOFSD: _BASE
    + _EVENTS
    + _SOCKETS
    + """
capget capset chmod chown copy_file_range fchdir fchmod fchmodat fchown fchownat fgetxattr
flistxattr fremovexattr fsetxattr getxattr kill lchown lgetxattr link linkat listxattr
llistxattr lremovexattr lsetxattr memfd_create mkdir mkdirat mknod mknodat
name_to_handle_at openat2 rename renameat renameat2 removexattr rmdir seccomp setfsgid setfsuid
setgroups setpriority setresgid setresuid setsid setxattr splice symlink symlinkat sync
syncfs tkill truncate utimensat chdir
""",
    Program.GIT: _BASE
    + _EVENTS
    + _SOCKETS
    + """
chdir copy_file_range fchdir fork getpgrp kill link linkat mincore mkdir mkdirat rename renameat
renameat2 rmdir sendfile setpgid setsid symlink symlinkat sync_file_range truncate utimensat vfork
""",
}

_PRCTL = (1, 2, 3, 4, 15, 16, 21, 22, 23, 38, 39, 47, 0x53564D41)
"""PDEATHSIG, DUMPABLE, NAME, SECCOMP, CAPBSET_READ, NO_NEW_PRIVS, CAP_AMBIENT, SET_VMA."""


_TERMINAL = (0x5401, 0x5402, 0x5403, 0x5404, 0x5413)
"""TCGETS, TCSETS, TCSETSW, TCSETSF, TIOCGWINSZ. Never TIOCSTI or TIOCLINUX, which push input."""
_ANY_FILE = (0x541B, 0x5421, 0x5450, 0x5451)
"""FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
_BASE_IOCTLS = tuple((number, _WHOLE) for number in (*_TERMINAL, *_ANY_FILE))
# The letter T is the terminal's and tun's; tun's requests move data and say so in the upper bits.
_TUN = ((0x40005400, 0xC000FF00), (0x80005400, 0xC000FF00))
_KVM = (0xAE00, 0xFF00)
_IOCTLS: dict[Program, tuple[tuple[int, int], ...]] = {
    Program.UML: (*_BASE_IOCTLS, *_TUN),
    Program.QEMU: (*_BASE_IOCTLS, *_TUN, _KVM),
    Program.MKFS_EROFS: _BASE_IOCTLS,
    Program.VIRTIOFSD: _BASE_IOCTLS,
    Program.GIT: _BASE_IOCTLS,
}
"""Requests as (wanted, mask): whole numbers, or all of one driver's by its letter."""


@functools.cache
def compile_filter(program: Program) -> bytes:
    """Return the filter of *program* as an array of sock_filter (seccomp(2))."""
    made = pyseccomp.SyscallFilter(defaction=pyseccomp.ERRNO(errno.EPERM))
    made.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)
    for name in sorted(program.names()):
        made.add_rule(pyseccomp.ALLOW, name)
    made.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    _add_checked(made, program)
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


def _add_checked(made: pyseccomp.SyscallFilter, program: Program) -> None:
    arg = pyseccomp.Arg
    allow, equal, masked = pyseccomp.ALLOW, pyseccomp.EQ, pyseccomp.MASKED_EQ
    made.add_rule(allow, "clone", arg(0, masked, CLONE_NEW, 0))
    # virtiofsd gives up its bounding set by itself (PR_CAPBSET_DROP).
    for option in (*_PRCTL, *((24,) if program == Program.VIRTIOFSD else ())):
        made.add_rule(allow, "prctl", arg(0, equal, option))
    if program == Program.VIRTIOFSD:
        # Its threads part their working directories (CLONE_FS).
        made.add_rule(allow, "unshare", arg(0, masked, CLONE_NEW, 0))
    if program == Program.UML:
        for persona in (ADDR_NO_RANDOMIZE, 0xFFFFFFFF):
            made.add_rule(allow, "personality", arg(0, equal, persona))
        # A kernel that panics sends itself SIGABRT until that fails and then exits. As the first
        # process of its namespace it can't be killed by itself and would spin for ever.
        made.add_rule(allow, "kill", arg(1, pyseccomp.NE, signal.SIGABRT))
    if program in (Program.UML, Program.GIT, Program.MKFS_EROFS):
        # A guest may change the mode of its disk (hostfs): no setuid file may come of it.
        for name in ("chmod", "fchmod"):
            made.add_rule(allow, name, arg(1, masked, _SPECIAL, 0))
    if program != Program.MKFS_EROFS:
        made.add_rule(allow, "socket", arg(0, equal, AF_UNIX))
    if program == Program.GIT:
        made.add_rule(allow, "fchmodat", arg(2, masked, _SPECIAL, 0))
        for family in (AF_INET, AF_INET6):
            for kind in (SOCK_STREAM, SOCK_DGRAM):
                made.add_rule(allow, "socket", arg(0, equal, family), arg(1, masked, _KIND, kind))
    for wanted, mask in _IOCTLS[program]:
        made.add_rule(allow, "ioctl", arg(1, masked, mask, wanted))
    _add_limits(made)


def _add_limits(made: pyseccomp.SyscallFilter) -> None:
    """Let limits be read, and two of them be set; never that of core dumps.

    The jail's limit of 1 byte keeps the kernel from handing a dump to a program of core_pattern; a
    limit of 0 would not (core(5)).
    """
    arg, allow, equal = pyseccomp.Arg, pyseccomp.ALLOW, pyseccomp.EQ
    made.add_rule(allow, "prlimit64", arg(2, equal, 0))
    for resource in (RLIMIT_STACK, RLIMIT_NOFILE):
        made.add_rule(allow, "prlimit64", arg(0, equal, 0), arg(1, equal, resource))


class FilterFile:
    """A compiled filter in an anonymous file that the jail's launcher can read."""

    def __init__(self, program: Program) -> None:
        try:
            self.fd = os.memfd_create(f"filter-{program}", os.MFD_CLOEXEC)
            os.write(self.fd, compile_filter(program))
        except (OSError, RuntimeError) as error:
            raise InternalError(f"the filter of {program} can't be compiled: {error}") from error


@functools.cache
def filter_file(program: Program) -> FilterFile:
    """Return the program's filter, compiled once per process."""
    return FilterFile(program)
