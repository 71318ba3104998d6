/* Other processes and files of the host. See breakout.c. */
#include "breakout.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- other processes --- */

static long see_others(void)
{
    for (pid_t pid = 2; pid < 70000; pid++)
        if (pid != getpid() && !kill(pid, 0))
            return 0;
    return refused(ESRCH);
}

static long signal_victim(void)
{
    return kill(victim, SIGCONT);
}

static long trace_victim(void)
{
    return ptrace(PTRACE_ATTACH, victim, NULL, NULL);
}

static long read_victim(void)
{
    char byte;
    struct iovec local = {&byte, 1}, remote = {(void *)0x400000, 1};
    return process_vm_readv(victim, &local, 1, &remote, 1, 0);
}

static long write_victim(void)
{
    char byte = 0;
    struct iovec local = {&byte, 1}, remote = {(void *)0x400000, 1};
    return process_vm_writev(victim, &local, 1, &remote, 1, 0);
}

static long open_victim(void)
{
    return syscall(SYS_pidfd_open, victim, 0);
}

static long limit_victim(void)
{
    struct rlimit limit = {1, 1};
    return prlimit(victim, RLIMIT_NOFILE, &limit, NULL);
}

/* --- files of the host --- */

static long open_any(const char *const *paths)
{
    for (; *paths; paths++)
        if (open(*paths, O_RDONLY | O_NONBLOCK) >= 0)
            return 0;
    return -1;
}

static long open_host_files(void)
{
    static const char *const paths[] = {"/etc/passwd",
                                        "/etc/shadow",
                                        "/root",
                                        "/home",
                                        "/usr/bin/env",
                                        "/var/run/docker.sock",
                                        "/run/hyper",
                                        "/sys",
                                        "/sys/fs/cgroup",
                                        "../../../../../../../../../../etc/passwd",
                                        NULL};
    return open_any(paths);
}

static long open_proc(void)
{
    static const char *const paths[] = {"/proc/self/status", "/proc/1/environ", "/proc/sys/kernel",
                                        "/proc/kcore", NULL};
    return open_any(paths);
}

static long open_devices(void)
{
    static const char *const paths[] = {
        "/dev/mem", "/dev/kmsg", "/dev/sda",          "/dev/vda",  "/dev/tty", "/dev/net/tun",
        "/dev/kvm", "/dev/fuse", "/dev/loop-control", "/dev/ptmx", NULL};
    return open_any(paths);
}

static long above_the_root(void)
{
    struct stat root, above;
    if (stat("/", &root) || stat("/../..", &above))
        return -1;
    return root.st_ino == above.st_ino && root.st_dev == above.st_dev ? refused(ENOENT) : 0;
}

static long open_by_handle(void)
{
    struct {
        struct file_handle head;
        unsigned char bytes[8];
    } handle = {.head = {.handle_bytes = 8, .handle_type = 1}};
    handle.bytes[0] = 2; /* the root's inode on ext4 */
    int base = open("/rw", O_RDONLY);
    return open_by_handle_at(base < 0 ? AT_FDCWD : base, &handle.head, O_RDONLY);
}

static long write_root(void)
{
    return open("/new", O_WRONLY | O_CREAT, 0600);
}

static long write_read_only_bind(void)
{
    return open("/ro/file", O_WRONLY);
}

static long make_in_read_only_bind(void)
{
    return open("/ro/new", O_WRONLY | O_CREAT, 0600);
}

static long make_writable(void)
{
    return mount(NULL, "/ro", NULL, MS_REMOUNT | MS_BIND, NULL);
}

static long make_device(void)
{
    if (mknod("/tmp/mem", S_IFCHR | 0600, makedev(1, 1)))
        return -1;
    return open("/tmp/mem", O_RDONLY);
}

static long make_device_in_bind(void)
{
    return mknod("/rw/mem", S_IFCHR | 0600, makedev(1, 1));
}

static long open_device_in_bind(void)
{
    return open("/rw/null", O_RDWR); /* a real device node of the host: the mount has nodev */
}

static long give_away(void)
{
    return chown("/rw/file", 0, 0);
}

/* Whoever of the host runs such a file becomes the jail's uid; virtiofsd's root makes them on purpose. */
static long make_setuid(void)
{
    return chmod("/rw/file", 04755);
}

static long run_setuid(void)
{
    pid_t child = fork();
    if (!child) {
        char *const argv[] = {(char[]){"/setuid"}, (char[]){"euid"}, NULL};
        execve(argv[0], argv, NULL);
        _exit(99);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : refused(EPERM);
}

static long run_what_was_written(void)
{
    int from = open("/breakout", O_RDONLY), to = open("/tmp/copy", O_WRONLY | O_CREAT, 0700);
    static char buffer[65536];
    for (ssize_t got; (got = read(from, buffer, sizeof buffer)) > 0;)
        if (write(to, buffer, (size_t)got) != got)
            return -1;
    close(to);
    char *const argv[] = {(char[]){"/tmp/copy"}, (char[]){"euid"}, NULL};
    return execve(argv[0], argv, NULL);
}

const struct attempt reach_attempts[] = {
    {"see-others", see_others},
    {"signal-victim", signal_victim},
    {"trace-victim", trace_victim},
    {"read-victim", read_victim},
    {"write-victim", write_victim},
    {"open-victim", open_victim},
    {"limit-victim", limit_victim},
    {"open-host-files", open_host_files},
    {"open-proc", open_proc},
    {"open-devices", open_devices},
    {"above-the-root", above_the_root},
    {"open-by-handle", open_by_handle},
    {"write-root", write_root},
    {"write-read-only-bind", write_read_only_bind},
    {"make-in-read-only-bind", make_in_read_only_bind},
    {"make-writable", make_writable},
    {"make-device", make_device},
    {"make-device-in-bind", make_device_in_bind},
    {"open-device-in-bind", open_device_in_bind},
    {"give-away", give_away},
    {"make-setuid", make_setuid},
    {"run-setuid", run_setuid},
    {"run-what-was-written", run_what_was_written},
    {NULL, NULL},
};
