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
AF_UNIX = 1
TIOCSTI = 0x5412
TIOCGWINSZ = 0x5413
FIONREAD = 0x541B
TIOCLINUX = 0x541C


class Program(StrEnum):
    """A program that is jailed; names its allow list."""

    UML = "uml"
    QEMU = "qemu"
    MKFS_EROFS = "mkfs.erofs"
    VIRTIOFSD = "virtiofsd"

    def names(self) -> frozenset[str]:
        """Return the system calls that the program may use."""
        return frozenset(_LISTS[self].split())


_BASE = """
access arch_prctl brk clock_getres clock_gettime clock_nanosleep close close_range dup dup2 dup3
execve exit exit_group faccessat faccessat2 fadvise64 fallocate fcntl fdatasync flock fstat fstatfs
fsync ftruncate futex getcwd getdents64 getegid geteuid getgid getgroups getitimer getpgid getpgrp
getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage gettid gettimeofday
getuid lseek lstat madvise membarrier mmap mprotect mremap munmap nanosleep newfstatat open openat
pipe pipe2 poll ppoll pread64 preadv preadv2 prlimit64 pselect6 pwrite64 pwritev pwritev2 read
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

_LISTS = {
    Program.UML: _BASE
    + _EVENTS
    + """
bind chmod connect execveat fchmod getsockname getsockopt memfd_create mkdir process_vm_readv
process_vm_writev ptrace recvfrom recvmmsg recvmsg rmdir seccomp sendmmsg sendmsg sendto setitimer
setsid setsockopt socketpair utimensat
""",
    Program.QEMU: _BASE
    + _EVENTS
    + _SOCKETS
    + """
chmod fchmod kill memfd_create mincore mlock mlockall munlock munlockall rename seccomp setitimer
setpriority setsid sync_file_range tkill mkdir
""",
    Program.MKFS_EROFS: _BASE + " chmod fchmod copy_file_range rename sendfile truncate kill",
    Program.VIRTIOFSD: _BASE
    + _EVENTS
    + _SOCKETS
    + """
capget capset chmod chown copy_file_range fchdir fchmod fchmodat fchown fchownat fgetxattr
flistxattr fremovexattr fsetxattr getxattr kill lchown lgetxattr link linkat listxattr
llistxattr lremovexattr lsetxattr memfd_create mkdir mkdirat mknod mknodat
name_to_handle_at open_by_handle_at openat2 rename renameat renameat2 removexattr rmdir seccomp setfsgid setfsuid setgroups setpriority
setresgid setresuid setsid setxattr splice symlink symlinkat sync
syncfs tkill truncate unshare utimensat chdir setrlimit
""",
}

_PRCTL = (1, 2, 3, 4, 15, 16, 21, 22, 23, 38, 39, 47, 0x53564D41)
"""PDEATHSIG, DUMPABLE, NAME, SECCOMP, CAPBSET_READ, NO_NEW_PRIVS, CAP_AMBIENT, SET_VMA."""


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
    for persona in (ADDR_NO_RANDOMIZE, 0xFFFFFFFF):
        made.add_rule(allow, "personality", arg(0, equal, persona))
    # virtiofsd gives up its bounding set by itself (PR_CAPBSET_DROP).
    for option in (*_PRCTL, *((24,) if program == Program.VIRTIOFSD else ())):
        made.add_rule(allow, "prctl", arg(0, equal, option))
    if program == Program.UML:
        # A kernel that panics sends itself SIGABRT until that fails and then exits. As the first
        # process of its namespace it can't be killed by itself and would spin for ever.
        made.add_rule(allow, "kill", arg(1, pyseccomp.NE, signal.SIGABRT))
    if program != Program.MKFS_EROFS:
        made.add_rule(allow, "socket", arg(0, equal, AF_UNIX))
    # Not the terminal's calls that push input or act on the console: 0x5412 to 0x541c hold both,
    # and of what lies between only the window's size and FIONREAD are of use.
    made.add_rule(allow, "ioctl", arg(1, pyseccomp.LT, TIOCSTI))
    for harmless in (TIOCGWINSZ, FIONREAD):
        made.add_rule(allow, "ioctl", arg(1, equal, harmless))
    made.add_rule(allow, "ioctl", arg(1, pyseccomp.GT, TIOCLINUX))


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
