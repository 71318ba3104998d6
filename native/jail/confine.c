/* What the jailed process gives up before it executes the program: descriptors, limits, identity,
 * capabilities (capabilities(7)), new privileges, and all system calls but those of its filter. */
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
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
    while ((size = pread(fd, (char *)program + program_bytes, sizeof program - program_bytes, (off_t)program_bytes)) > 0)
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

/* Moves every kept descriptor above all targets first, so that no target overwrites a source. */
void arrange_fds(const struct jail *jail)
{
    int moved[MAX_FDS], last = 2;
    for (size_t i = 0; i < jail->fd_count; i++) {
        moved[i] = fcntl(jail->fds[i].source, F_DUPFD_CLOEXEC, 512);
        if (moved[i] < 0)
            die("descriptor", "to keep");
        if (jail->fds[i].target > last)
            last = jail->fds[i].target;
    }
    int null = fcntl(open("/dev/null", O_RDWR | O_CLOEXEC), F_DUPFD_CLOEXEC, 512);
    int report = fcntl(jail->report, F_DUPFD_CLOEXEC, 512);
    if (report < 0)
        die("descriptor", "report");
    report_to(report);
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
    if (syscall(SYS_close_range, (unsigned)last + 1, 511U, 0U) ||
        (report > 512 && syscall(SYS_close_range, 512U, (unsigned)report - 1, 0U)) ||
        syscall(SYS_close_range, (unsigned)report + 1, ~0U, 0U))
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

void drop_privileges(const struct jail *jail)
{
    if (jail->no_aslr && personality(ADDR_NO_RANDOMIZE) < 0)
        die("personality", "ADDR_NO_RANDOMIZE");
    for (size_t i = 0; i < jail->limit_count; i++) {
        struct rlimit limit = {jail->limits[i].value, jail->limits[i].value};
        if (setrlimit((__rlimit_resource_t)jail->limits[i].resource, &limit))
            die("resource limit", "setrlimit");
    }
    keep_capabilities(jail->caps);
    if (setgroups(0, NULL) || setresgid(jail->gid, jail->gid, jail->gid) ||
        setresuid(jail->uid, jail->uid, jail->uid))
        die("identity", "setresuid");
    set_capabilities(jail->caps);
    /* Not before setresuid(2), which forgets it. */
    if (jail->wait && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
        die("prctl", "PR_SET_PDEATHSIG");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        die("prctl", "PR_SET_NO_NEW_PRIVS");
}
