/* Namespaces, mounts, identity, network: what needs rights. See breakout.c. */
#include "breakout.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* --- namespaces and mounts --- */

static const struct {
    const char *name;
    unsigned long flag;
} NAMESPACES[] = {
    {"mount", CLONE_NEWNS},      {"user", CLONE_NEWUSER}, {"pid", CLONE_NEWPID},
    {"network", CLONE_NEWNET},   {"ipc", CLONE_NEWIPC},   {"uts", CLONE_NEWUTS},
    {"cgroup", CLONE_NEWCGROUP},
};

static long unshare_all(void)
{
    for (size_t i = 0; i < sizeof NAMESPACES / sizeof NAMESPACES[0]; i++)
        if (!unshare((int)NAMESPACES[i].flag))
            return 0;
    return -1;
}

static long unshare_time(void)
{
    return unshare(0x80);
}

static long clone_all(void)
{
    for (size_t i = 0; i < sizeof NAMESPACES / sizeof NAMESPACES[0]; i++) {
        long pid = syscall(SYS_clone, NAMESPACES[i].flag | SIGCHLD, 0, 0, 0, 0);
        if (!pid)
            _exit(0);
        if (pid > 0)
            return 0;
    }
    return -1;
}

static long clone3_user(void)
{
    struct clone_args arguments = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (!pid)
        _exit(0);
    return pid;
}

static long enter_namespace(void)
{
    return setns(0, 0);
}

static long mount_tmpfs(void)
{
    return mount("none", "/tmp", "tmpfs", 0, NULL);
}

static long mount_proc(void)
{
    return mount("proc", "/proc", "proc", 0, NULL);
}

static long unmount(void)
{
    return umount2("/ro", MNT_DETACH);
}

static long change_root(void)
{
    return chroot("/tmp");
}

static long pivot(void)
{
    return syscall(SYS_pivot_root, "/tmp", "/tmp");
}

static long open_file_system(void)
{
    return syscall(SYS_fsopen, "tmpfs", 0);
}

static long open_tree_clone(void)
{
    return syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */);
}

static long set_mount_attributes(void)
{
    uint64_t attributes[4] = {0, 1 /* MOUNT_ATTR_RDONLY */, 0, 0};
    return syscall(SYS_mount_setattr, AT_FDCWD, "/ro", 0, attributes, sizeof attributes);
}

/* --- identity --- */

static long become_root(void)
{
    return setuid(0);
}

static long become_root_all(void)
{
    return setresuid(0, 0, 0);
}

static long become_root_group(void)
{
    return setgid(0);
}

static long join_groups(void)
{
    gid_t root = 0;
    return setgroups(1, &root);
}

static long take_capabilities(void)
{
    uint32_t header[2] = {0x20080522, 0}, data[6] = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u};
    return syscall(SYS_capset, header, data);
}

static long ambient_capability(void)
{
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21 /* CAP_SYS_ADMIN */, 0, 0);
}

static long secure_bits(void)
{
    return prctl(PR_SET_SECUREBITS, 0, 0, 0, 0);
}

static long new_privileges(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0);
}

static long no_seccomp(void)
{
    return prctl(PR_SET_SECCOMP, 0, 0, 0, 0);
}

static long memory_map(void)
{
    return prctl(PR_SET_MM, 1, 0, 0, 0);
}

/* --- network --- */

static long socket_of(int family, int type, int protocol)
{
    return socket(family, type, protocol);
}

static long socket_inet(void)
{
    return socket_of(AF_INET, SOCK_STREAM, 0);
}

static long socket_inet6(void)
{
    return socket_of(AF_INET6, SOCK_DGRAM, 0);
}

static long socket_raw(void)
{
    return socket_of(AF_INET, SOCK_RAW, 1);
}

static long socket_netlink(void)
{
    return socket_of(AF_NETLINK, SOCK_RAW, 0);
}

static long socket_packet(void)
{
    return socket_of(AF_PACKET, SOCK_RAW, 0x300);
}

static long socket_vsock(void)
{
    return socket_of(AF_VSOCK, SOCK_STREAM, 0);
}

static long socket_crypto(void)
{
    return socket_of(AF_ALG, SOCK_SEQPACKET, 0);
}

/* The test listens on this abstract name in the host's network namespace. */
static long abstract_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, "\0hyper-jail-test", 16);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return fd < 0 ? -1 : connect(fd, (struct sockaddr *)&address, sizeof(sa_family_t) + 16);
}

const struct attempt rights_attempts[] = {
    {"unshare", unshare_all},
    {"unshare-time", unshare_time},
    {"clone", clone_all},
    {"clone3", clone3_user},
    {"setns", enter_namespace},
    {"mount-tmpfs", mount_tmpfs},
    {"mount-proc", mount_proc},
    {"umount", unmount},
    {"chroot", change_root},
    {"pivot-root", pivot},
    {"fsopen", open_file_system},
    {"open-tree", open_tree_clone},
    {"mount-setattr", set_mount_attributes},
    {"setuid", become_root},
    {"setresuid", become_root_all},
    {"setgid", become_root_group},
    {"setgroups", join_groups},
    {"capset", take_capabilities},
    {"ambient", ambient_capability},
    {"securebits", secure_bits},
    {"new-privileges", new_privileges},
    {"no-seccomp", no_seccomp},
    {"set-mm", memory_map},
    {"socket-inet", socket_inet},
    {"socket-inet6", socket_inet6},
    {"socket-raw", socket_raw},
    {"socket-netlink", socket_netlink},
    {"socket-packet", socket_packet},
    {"socket-vsock", socket_vsock},
    {"socket-alg", socket_crypto},
    {"abstract-socket", abstract_socket},
    {NULL, NULL},
};
