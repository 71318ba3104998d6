/* jail OPTIONS -- PROGRAM [ARGUMENT...]: runs a program behind every wall that Linux has.
 *
 * Options (see docs/jail.md): --root DIR --netns FILE --cgroup DIR --uid N --gid N --caps BITS
 * --bind SOURCE TARGET [r-]ro|ro-top|rw --tmpfs TARGET OPTIONS --exec-tmpfs TARGET OPTIONS --device PATH
 * --fd TARGET SOURCE --limit RESOURCE VALUE --env NAME=VALUE --filter FILE --no-aslr --proc
 * --oom-score N --report FD --wait
 *
 * On the report descriptor: "PID\n" of the jailed process, then nothing (the program runs) or
 * "error: SENTENCE". The launcher ends as soon as the jailed process exists; with
 * --wait it ends with it and takes its exit status, and the jailed process dies with it, as it dies
 * with the process that started it. */
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int report_fd = 2;

void report_to(int fd)
{
    report_fd = fd;
}

_Noreturn void die(const char *what, const char *object)
{
    int error = errno;
    dprintf(report_fd, "error: %s %s: %s\n", what, object, strerror(error));
    _exit(1);
}

_Noreturn void refuse(const char *what, const char *object)
{
    dprintf(report_fd, "error: %s %s\n", what, object);
    _exit(1);
}

static void write_file(const char *directory, const char *name, const char *value)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path)
        refuse("path too long:", directory);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, strlen(value)) < 0)
        die("write", path);
    close(fd);
}

/* The launcher enters first: what it clones is born inside, which spares a migration. */
static void enter_host_parts(const struct jail *jail)
{
    for (size_t i = 0; i < jail->cgroup_count; i++)
        write_file(jail->cgroups[i], "cgroup.procs", "0");
    if (jail->oom_score)
        write_file("/proc/self", "oom_score_adj", jail->oom_score);
    if (!jail->netns)
        return;
    int fd = open(jail->netns, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET))
        die("network namespace", jail->netns);
    close(fd);
}

static void reset_signals(void)
{
    for (int number = 1; number < NSIG; number++)
        if (number != SIGKILL && number != SIGSTOP)
            signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void jailed(struct jail *jail)
{
    /* Mount points are everybody's to pass; what the program makes is its own. */
    umask(022);
    reset_signals();
    if (setsid() < 0 || sethostname("jail", 4))
        die("session", "setsid");
    load_filter(jail);
    open_null();
    build_root(jail);
    open_null();
    umask(077);
    arrange_fds(jail);
    drop_privileges(jail);
    install_filter();
    execve(jail->argv[0], jail->argv, jail->env);
    die("exec", jail->argv[0]);
}

static int status_of(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return 125;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* With --wait: the launcher dies with who started it, and the jailed process with the launcher,
 * which keeps the other end of a pipe as long as it lives. */
static void tie_lives(struct jail *jail)
{
    int ends[2];
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
        die("prctl", "PR_SET_PDEATHSIG");
    struct pollfd report = {.fd = jail->report};
    if (poll(&report, 1, 0) < 0 || report.revents & POLLERR)
        _exit(1); /* nobody reads the report: the starter has died before it could be noticed */
    if (pipe2(ends, O_CLOEXEC))
        die("pipe", "to the launcher");
    jail->alive = ends[0];
}

int main(int argc, char **argv)
{
    static struct jail jail = {.report = 2, .alive = -1};
    parse_options(&jail, argc, argv);
    fcntl(jail.report, F_SETFD, FD_CLOEXEC);
    enter_host_parts(&jail);
    if (jail.wait)
        tie_lives(&jail);
    struct clone_args arguments = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP |
                 (jail.netns ? 0 : CLONE_NEWNET),
        .exit_signal = SIGCHLD,
    };
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid < 0)
        die("clone", "namespaces");
    if (!pid)
        jailed(&jail);
    dprintf(jail.report, "%ld\n", pid);
    if (!jail.wait)
        _exit(0);
    close(jail.report);
    _exit(status_of((pid_t)pid));
}
