/* System calls that the C library has no function for, and the few structures and bits they take:
 * the kernel's headers and the library's contradict each other about those. Each returns what the
 * system call does, with errno set. */
#ifndef HYPER_SYS_H
#define HYPER_SYS_H

#include <errno.h>
#include <linux/openat2.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* clone3(2) */
#define SYS_CLONE_PIDFD 0x1000ull
#define SYS_CLONE_INTO_CGROUP 0x200000000ull
struct sys_clone_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        set_tid_size, cgroup;
};

/* open_tree(2), move_mount(2), mount_setattr(2) */
enum {
    SYS_OPEN_TREE_CLONE = 1,
    SYS_OPEN_TREE_CLOEXEC = 02000000,
    SYS_AT_EMPTY_PATH = 0x1000,
    SYS_AT_RECURSIVE = 0x8000,
    SYS_MOVE_FROM_EMPTY_PATH = 0x04,
    SYS_MOVE_TO_EMPTY_PATH = 0x40,
    SYS_ATTR_RDONLY = 1,
    SYS_ATTR_NOSUID = 2,
    SYS_ATTR_NODEV = 4,
    SYS_ATTR_NOEXEC = 8,
};
struct sys_mount_attr {
    uint64_t set, clear, propagation, userns_fd;
};

static inline pid_t sys_clone3(struct sys_clone_args *args)
{
    return (pid_t)syscall(SYS_clone3, args, sizeof *args);
}

/* Where a ".." meets anybody's rename the kernel can't tell whether it led out, and says EAGAIN:
 * tried again, but not for as long as a container likes to rename. */
static inline int sys_openat2(int dir, const char *path, uint64_t flags, uint64_t mode,
                              uint64_t resolve)
{
    struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
    int fd = -1;
    for (int tries = 0; tries < 128 && fd < 0; tries++) {
        fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
        if (fd < 0 && errno != EAGAIN)
            break;
    }
    return fd;
}

static inline int sys_open_tree(int dir, const char *path, int flags)
{
    return (int)syscall(SYS_open_tree, dir, path, flags);
}

/* Puts the detached mount `tree` on what the descriptor `target` stands for. */
static inline int sys_attach(int tree, int target)
{
    return (int)syscall(SYS_move_mount, tree, "", target, "",
                        SYS_MOVE_FROM_EMPTY_PATH | SYS_MOVE_TO_EMPTY_PATH);
}

static inline int sys_mount_setattr(int tree, int flags, const struct sys_mount_attr *attr)
{
    return (int)syscall(SYS_mount_setattr, tree, "", flags | SYS_AT_EMPTY_PATH, attr, sizeof *attr);
}

static inline int sys_pivot_root(const char *root, const char *old)
{
    return (int)syscall(SYS_pivot_root, root, old);
}

static inline int sys_pidfd_open(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

static inline int sys_pidfd_kill(int pidfd, int signal)
{
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

static inline int sys_close_from(unsigned first)
{
    return (int)syscall(SYS_close_range, first, ~0u, 0);
}

#endif
