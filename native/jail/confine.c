/* What the jailed process gives up before it executes the program: descriptors, limits, identity,
 * capabilities (capabilities(7)), new privileges, and all system calls but those of its filter. */
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct sock_filter program[BPF_MAXINSNS];
static size_t program_bytes;

void load_filter(const struct jail *jail)
{
    if (!jail->filter)
        return;
    int fd = open(jail->filter, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die("filter", jail->filter);
    ssize_t size;
    while ((size = pread(fd, (char *)program + program_bytes, sizeof program - program_bytes,
                         (off_t)program_bytes)) > 0)
        program_bytes += (size_t)size;
    if (size < 0)
        die("filter", jail->filter);
    if (!program_bytes || program_bytes % sizeof program[0])
        refuse("not a system call filter:", jail->filter);
    close(fd);
}

void install_filter(void)
{
    if (!program_bytes)
        return;
    struct sock_fprog loaded = {
        .len = (unsigned short)(program_bytes / sizeof program[0]),
        .filter = program,
    };
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &loaded))
        die("seccomp", "filter");
}

/* Descriptors of ours that stay until the program is executed, above all targets. */
enum { REPORT = 510, ALIVE = 511, MOVED = 512 };

static int moved_up(int fd, const char *what)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, MOVED);
    if (moved < 0)
        die("descriptor", what);
    return moved;
}

static int null = -1;

/* Called before the jail's root is built and after: its own /dev/null if it has one, else the
 * host's. */
void open_null(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0 && null >= 0)
        return;
    if (fd < 0)
        die("open", "/dev/null");
    null = moved_up(fd, "/dev/null");
}

static void move_to(int fd, int target)
{
    if (dup3(fd, target, O_CLOEXEC) < 0)
        die("descriptor", "dup3");
}

static void arrange_own(const struct jail *jail)
{
    int report = moved_up(jail->report, "report");
    int alive = jail->alive >= 0 ? moved_up(jail->alive, "launcher") : -1;
    move_to(report, REPORT);
    report_to(REPORT);
    if (alive < 0)
        close(ALIVE);
    else
        move_to(alive, ALIVE);
}

/* Moves every kept descriptor above all targets first, so that no target overwrites a source. What
 * is not kept of 0, 1 and 2 becomes /dev/null, so that no other file gets their number. */
void arrange_fds(const struct jail *jail)
{
    int moved[MAX_FDS], last = 2;
    for (size_t i = 0; i < jail->fd_count; i++) {
        moved[i] = moved_up(jail->fds[i].source, "to keep");
        if (jail->fds[i].target > last)
            last = jail->fds[i].target;
    }
    arrange_own(jail);
    for (int fd = 0; fd <= last; fd++) {
        int source = fd <= 2 ? null : -1;
        for (size_t i = 0; i < jail->fd_count; i++)
            if (jail->fds[i].target == fd)
                source = moved[i];
        if (source < 0)
            close(fd);
        else if (dup2(source, fd) < 0)
            die("descriptor", "dup2");
    }
    if (syscall(SYS_close_range, (unsigned)last + 1, (unsigned)REPORT - 1, 0U) ||
        syscall(SYS_close_range, (unsigned)MOVED, ~0U, 0U))
        die("descriptors", "close_range");
}

static void keep_capabilities(uint64_t keep)
{
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if ((cap >= 64 || !(keep >> cap & 1)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
            die("capability", "bounding set");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) && errno != EINVAL)
        die("capability", "ambient set");
}

static void set_capabilities(uint64_t keep)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    for (int word = 0; word < 2; word++)
        data[word].effective = data[word].permitted = (uint32_t)(keep >> (32 * word));
    if (syscall(SYS_capset, &header, data))
        die("capability", "capset");
}

/* Nothing of a jailed program is dumped: its memory is the guest's. A limit of 0 would keep it from
 * files alone; 1 also keeps the kernel from handing it to a program of core_pattern (core(5)). */
static void set_limits(const struct jail *jail)
{
    for (size_t i = 0; i < jail->limit_count; i++) {
        struct rlimit limit = {jail->limits[i].value, jail->limits[i].value};
        if (jail->limits[i].resource == RLIMIT_CORE)
            continue;
        if (setrlimit((__rlimit_resource_t)jail->limits[i].resource, &limit))
            die("resource limit", "setrlimit");
    }
    struct rlimit core = {1, 1};
    if (setrlimit(RLIMIT_CORE, &core)) {
        core = (struct rlimit){0, 0}; /* this host's own limit is lower, and may not be raised */
        if (setrlimit(RLIMIT_CORE, &core))
            die("resource limit", "core");
    }
}

/* For a program that is to die with its launcher, which may have died a moment ago. */
static void die_with_launcher(void)
{
    /* Not before setresuid(2), which forgets it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
        die("prctl", "PR_SET_PDEATHSIG");
    struct pollfd launcher = {.fd = ALIVE};
    if (poll(&launcher, 1, 0) < 0 || launcher.revents)
        refuse("the launcher", "is gone");
}

void drop_privileges(const struct jail *jail)
{
    if (jail->no_aslr && personality(ADDR_NO_RANDOMIZE) < 0)
        die("personality", "ADDR_NO_RANDOMIZE");
    set_limits(jail);
    keep_capabilities(jail->caps);
    if (setgroups(0, NULL) || setresgid(jail->gid, jail->gid, jail->gid) ||
        setresuid(jail->uid, jail->uid, jail->uid))
        die("identity", "setresuid");
    set_capabilities(jail->caps);
    if (jail->wait)
        die_with_launcher();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        die("prctl", "PR_SET_NO_NEW_PRIVS");
}
