/* Runs inside a jail and tries to get out of it, or to reach what it must not. Each attempt is a
 * child of its own and prints one line: "NAME refused ERRNO", "NAME killed SIGNAL" or "NAME DONE",
 * which is what must never be. tests/integration/security/test_jail.py reads them.
 *
 * breakout VICTIM: all attempts; VICTIM is the pid of a process of the host.
 * breakout hold: prints "holding" and sleeps. breakout euid: its exit status is its effective uid's
 * lowest bits. breakout fds: prints its open descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* An attempt returns what a system call returns: -1 with errno if it was refused. */
typedef long attempt_fn(void);

static pid_t victim;

static long refused(int error)
{
    errno = error;
    return -1;
}

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

/* --- the kernel --- */

#define CALL(name, ...)                                                                            \
    static long call_##name(void)                                                                  \
    {                                                                                              \
        return syscall(SYS_##name, __VA_ARGS__);                                                   \
    }

CALL(keyctl, 0, -3, 1)
CALL(add_key, "user", "x", "y", 1, -3)
CALL(request_key, "user", "x", NULL, -3)
CALL(perf_event_open, NULL, 0, -1, -1, 0)
CALL(io_uring_setup, 1, NULL)
CALL(userfaultfd, 1)
CALL(kexec_load, 0, 0, NULL, 0)
CALL(kexec_file_load, -1, -1, 0, NULL, 0)
CALL(init_module, NULL, 0, "")
CALL(finit_module, 0, "", 0)
CALL(delete_module, "x", 0)
CALL(swapon, "/tmp/x", 0)
CALL(sethostname, "x", 1)
CALL(setdomainname, "x", 1)
CALL(settimeofday, NULL, NULL)
CALL(clock_settime, 0, NULL)
CALL(syslog, 3, NULL, 0)
CALL(acct, NULL)
CALL(quotactl, 0, NULL, 0, NULL)
CALL(iopl, 3)
CALL(ioperm, 0x80, 1, 1)
CALL(modify_ldt, 0, NULL, 0)
CALL(fanotify_init, 0, 0)
CALL(pidfd_getfd, 0, 0, 0)
CALL(process_madvise, 0, NULL, 0, 0, 0)
CALL(kcmp, 1, 1, 0, 0, 0)
CALL(move_pages, 0, 0, NULL, NULL, NULL, 0)
CALL(migrate_pages, 0, 0, NULL, NULL)
CALL(mbind, NULL, 0, 0, NULL, 0, 0)
CALL(vhangup, 0)
CALL(vmsplice, -1, NULL, 0, 0)
CALL(shmget, 1, 4096, 0600)
CALL(msgget, 1, 0600)
CALL(semget, 1, 1, 0600)
CALL(mq_open, "x", 0, 0, NULL)
CALL(uselib, "/breakout")
CALL(memfd_secret, 0)

static long load_bpf(void)
{
    union bpf_attr attributes = {0};
    return syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes);
}

static long restart_host(void)
{
    return syscall(SYS_reboot, 0xfee1dead, 672274793, RB_DISABLE_CAD, NULL);
}

static long other_persona(void)
{
    return personality(READ_IMPLIES_EXEC);
}

static long be_urgent(void)
{
    return setpriority(PRIO_PROCESS, 0, -20);
}

static long be_real_time(void)
{
    struct sched_param parameters = {.sched_priority = 1};
    return sched_setscheduler(0, SCHED_FIFO, &parameters);
}

/* A 32-bit call by the old door: another table of numbers. */
static long old_door(void)
{
    long result = 20; /* getpid */
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory");
    return result > 0 ? 0 : refused((int)-result);
}

static long x32_call(void)
{
    return syscall(0x40000000L | SYS_getpid);
}

/* --- terminals --- */

static long request(unsigned long number)
{
    int fd = open("/dev/null", O_RDWR);
    return syscall(SYS_ioctl, fd < 0 ? 0 : fd, number, "x");
}

static long push_input(void)
{
    return request(0x5412); /* TIOCSTI */
}

static long push_input_in_disguise(void)
{
    return request(0x100005412); /* the kernel looks at the lower half alone */
}

static long paste_selection(void)
{
    return request(0x541c); /* TIOCLINUX */
}

static long take_terminal(void)
{
    return request(0x540e); /* TIOCSCTTY */
}

static long stop_file_system(void)
{
    return request(0x8004587d); /* XFS_IOC_GOINGDOWN */
}

/* --- limits --- */

static long raise_limit(int resource)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit))
        return -1;
    limit.rlim_max++;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(resource, &limit);
}

static long more_descriptors(void)
{
    return raise_limit(RLIMIT_NOFILE);
}

static long more_processes(void)
{
    return raise_limit(RLIMIT_NPROC);
}

static long larger_files(void)
{
    return raise_limit(RLIMIT_FSIZE);
}

static long other_core_limit(void)
{
    struct rlimit none = {0, 0};
    return setrlimit(RLIMIT_CORE, &none);
}

static long dump_core(void)
{
    pid_t child = fork();
    if (!child) {
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
        raise(SIGSEGV);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    return WCOREDUMP(status) ? 0 : refused(EFBIG);
}

static long fork_on_and_on(void)
{
    for (int i = 0; i < 200; i++) {
        pid_t child = fork();
        if (child < 0)
            return -1;
        if (!child) {
            pause();
            sleep(3);
            _exit(0);
        }
    }
    return 0;
}

static long write_on_and_on(void)
{
    signal(SIGXFSZ, SIG_IGN);
    int fd = open("/rw/big", O_WRONLY | O_CREAT, 0600);
    return fd < 0 ? -1 : pwrite(fd, "x", 1, 1 << 30) == 1 ? 0 : -1;
}

static const struct {
    const char *name;
    attempt_fn *fn;
} ATTEMPTS[] = {
    {"see-others", see_others},
    {"signal-victim", signal_victim},
    {"trace-victim", trace_victim},
    {"read-victim", read_victim},
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
    {"run-setuid", run_setuid},
    {"run-what-was-written", run_what_was_written},
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
    {"keyctl", call_keyctl},
    {"add-key", call_add_key},
    {"request-key", call_request_key},
    {"bpf", load_bpf},
    {"perf-event-open", call_perf_event_open},
    {"io-uring-setup", call_io_uring_setup},
    {"userfaultfd", call_userfaultfd},
    {"kexec-load", call_kexec_load},
    {"kexec-file-load", call_kexec_file_load},
    {"init-module", call_init_module},
    {"finit-module", call_finit_module},
    {"delete-module", call_delete_module},
    {"swapon", call_swapon},
    {"reboot", restart_host},
    {"sethostname", call_sethostname},
    {"setdomainname", call_setdomainname},
    {"settimeofday", call_settimeofday},
    {"clock-settime", call_clock_settime},
    {"syslog", call_syslog},
    {"acct", call_acct},
    {"quotactl", call_quotactl},
    {"iopl", call_iopl},
    {"ioperm", call_ioperm},
    {"modify-ldt", call_modify_ldt},
    {"fanotify-init", call_fanotify_init},
    {"pidfd-getfd", call_pidfd_getfd},
    {"process-madvise", call_process_madvise},
    {"kcmp", call_kcmp},
    {"move-pages", call_move_pages},
    {"migrate-pages", call_migrate_pages},
    {"mbind", call_mbind},
    {"vhangup", call_vhangup},
    {"vmsplice", call_vmsplice},
    {"shmget", call_shmget},
    {"msgget", call_msgget},
    {"semget", call_semget},
    {"mq-open", call_mq_open},
    {"uselib", call_uselib},
    {"memfd-secret", call_memfd_secret},
    {"personality", other_persona},
    {"setpriority", be_urgent},
    {"real-time", be_real_time},
    {"int-0x80", old_door},
    {"x32", x32_call},
    {"tiocsti", push_input},
    {"tiocsti-disguised", push_input_in_disguise},
    {"tioclinux", paste_selection},
    {"tiocsctty", take_terminal},
    {"xfs-goingdown", stop_file_system},
    {"more-descriptors", more_descriptors},
    {"more-processes", more_processes},
    {"larger-files", larger_files},
    {"core-limit", other_core_limit},
    {"core-dump", dump_core},
    {"fork-on-and-on", fork_on_and_on},
    {"write-on-and-on", write_on_and_on},
};

/* The attempt's child is killed with all that it has forked: it is a process group. */
static void attempt(size_t number)
{
    int ends[2], report[2] = {0, 0}, status;
    if (pipe(ends))
        exit(3);
    pid_t child = fork();
    if (child < 0)
        exit(4);
    if (!child) {
        long result = ATTEMPTS[number].fn();
        report[0] = result >= 0;
        report[1] = errno;
        if (write(ends[1], report, sizeof report) != sizeof report)
            _exit(1);
        raise(SIGSTOP); /* so that what it has done is still there when it is counted as done */
        _exit(0);
    }
    close(ends[1]);
    ssize_t got = read(ends[0], report, sizeof report);
    close(ends[0]);
    kill(-1, SIGKILL); /* everybody but the first process of the namespace */
    while (waitpid(-1, &status, 0) != child)
        ;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    if (got != sizeof report && WIFSIGNALED(status))
        printf("%s killed %d\n", ATTEMPTS[number].name, WTERMSIG(status));
    else if (got != sizeof report || report[0])
        printf("%s DONE\n", ATTEMPTS[number].name);
    else
        printf("%s refused %s\n", ATTEMPTS[number].name, strerrorname_np(report[1]));
}

static int print_descriptors(void)
{
    for (int fd = 0; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("%d\n", fd);
    return 0;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "euid"))
        return (int)(geteuid() & 0x7f);
    if (!strcmp(verb, "fds"))
        return print_descriptors();
    if (!strcmp(verb, "hold")) {
        printf("holding\n");
        fflush(stdout);
        for (;;)
            sleep(1000);
    }
    victim = (pid_t)atoi(verb);
    for (size_t i = 0; i < sizeof ATTEMPTS / sizeof ATTEMPTS[0]; i++) {
        attempt(i);
        fflush(stdout);
    }
    printf("end\n");
    return 0;
}
