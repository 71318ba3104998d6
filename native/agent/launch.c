/* The agent's side of a start: see launch.h. */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop.h"
#include "reap.h"
#include "sys.h"

/* A little less than the daemon waits, so that it gets an answer. Filling a volume takes longest. */
enum { LATE_MS = 58000 };

struct launching {
    int status;
    uint32_t timer;
    bool ready, dns; /* dns: its sockets are to come */
    struct launched launched;
    struct failure failure;
    struct process *process;
    launched_fn *done;
    void *context;
};

static void finish(struct launching *launching)
{
    struct launched *launched = &launching->launched;
    bool failed = launching->failure.error || !launching->ready;
    if (!launching->failure.error && !launching->ready)
        fail(&launching->failure, STAGE_OTHER, ENOMEM,
             "the process was killed before it could be executed (memory limit too low?)");
    loop_remove(launching->status);
    close(launching->status);
    loop_cancel(launching->timer);
    if (failed) {
        sys_pidfd_kill(launched->pidfd, SIGKILL);
        int fds[] = {launched->pidfd, launched->dns_udp, launched->dns_tcp};
        for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
            if (fds[i] >= 0)
                close(fds[i]);
    }
    launching->done(launching->context, launched, failed ? &launching->failure : NULL);
    free(launching);
}

static void on_late(void *context)
{
    struct launching *launching = context;
    launching->timer = 0;
    fail(&launching->failure, STAGE_OTHER, ETIMEDOUT, "the start took too long");
    finish(launching);
}

static void take_report(struct launching *launching, const struct report *report, const int *fds,
                        size_t count)
{
    struct launched *launched = &launching->launched;
    size_t used = 0;
    if (report->kind == REPORT_TERMINAL && count == 1) {
        process_terminal(launching->process, fds[0]);
        used = 1;
    } else if (report->kind == REPORT_DNS && count == 2 && launching->dns) {
        launching->dns = false;
        launched->dns_udp = fds[0];
        launched->dns_tcp = fds[1];
        used = 2;
    } else if (report->kind == REPORT_READY) {
        launching->ready = true;
        launched->started_ns = report->time_ns;
    } else if (report->kind == REPORT_FAILED) {
        launching->failure = report->failure;
        launching->failure.detail[FAIL_DETAIL - 1] = 0;
        if (!launching->failure.error)
            launching->failure.error = EIO;
    }
    while (used < count)
        close(fds[used++]);
}

static void on_status(void *context, uint32_t events)
{
    (void)events;
    struct launching *launching = context;
    for (;;) {
        struct report report = {0};
        int fds[2];
        size_t count = 2;
        ssize_t got = report_receive(launching->status, &report, fds, &count);
        if (got == (ssize_t)sizeof report)
            take_report(launching, &report, fds, count);
        else if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        else
            break;
    }
    finish(launching);
}

/* Cloning */

static bool joins_pid(const struct launch *launch)
{
    for (size_t i = 0; i < launch->joined_count; i++)
        if (launch->joined[i].namespaces & CLONE_NEWPID)
            return true;
    return false;
}

/* A PID namespace is joined by the children of the one who says setns: the agent itself stays where
 * it is, and needs no process between. */
static int enter_pid(const struct launch *launch)
{
    for (size_t i = 0; i < launch->joined_count; i++)
        if (launch->joined[i].namespaces & CLONE_NEWPID)
            return setns(launch->joined[i].pidfd, CLONE_NEWPID);
    return 0;
}

static pid_t clone_child(const struct launch *launch, int *pidfd)
{
    bool joined = joins_pid(launch);
    int home = joined ? open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC) : -1;
    if (joined && (home < 0 || enter_pid(launch))) {
        int error = errno;
        if (home >= 0)
            close(home);
        errno = error;
        return -1;
    }
    bool new_pid = !launch->exec && !joined && launch->spec->namespaces & CLONE_NEWPID;
    struct sys_clone_args args = {
        .flags = SYS_CLONE_PIDFD | SYS_CLONE_INTO_CGROUP | (new_pid ? CLONE_NEWPID : 0u),
        .pidfd = (uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
        .cgroup = (uint64_t)launch->cgroup_dir,
    };
    pid_t pid = sys_clone3(&args);
    int error = errno;
    if (pid && joined && setns(home, CLONE_NEWPID))
        abort(); /* every later child would be in the wrong place */
    if (home >= 0)
        close(home);
    errno = error;
    return pid;
}

static int spawn(struct launching *launching, const struct launch *launch,
                 struct failure *failure)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return fail_errno(failure, STAGE_OTHER, errno, "socketpair");
    pid_t pid = clone_child(launch, &launching->launched.pidfd);
    if (!pid)
        child_main(launch, ends[1]);
    int error = errno;
    close(ends[1]);
    launching->status = ends[0];
    launching->launched.pid = pid;
    if (pid > 0) {
        reap_made(pid);
        return 0;
    }
    close(ends[0]);
    return fail_errno(failure, STAGE_NAMESPACE, error, "clone3");
}

static int watch(struct launching *launching)
{
    int error = loop_add(launching->status, EPOLLIN, on_status, launching);
    if (error)
        return error;
    launching->timer = loop_after(LATE_MS, on_late, launching);
    if (launching->timer)
        return 0;
    loop_remove(launching->status);
    return -ENOMEM;
}

int launch_begin(const struct launch *launch, struct process *process, launched_fn *done,
                 void *context, struct failure *failure)
{
    struct launching *launching = calloc(1, sizeof *launching);
    if (!launching)
        return fail(failure, STAGE_OTHER, ENOMEM, "no memory");
    launching->process = process;
    launching->done = done;
    launching->context = context;
    launching->dns = launch->dns_port != 0;
    launching->launched = (struct launched){.pidfd = -1, .dns_udp = -1, .dns_tcp = -1};
    int result = spawn(launching, launch, failure);
    int error = result ? 0 : watch(launching);
    if (!result && !error)
        return 0;
    if (error) {
        sys_pidfd_kill(launching->launched.pidfd, SIGKILL);
        close(launching->launched.pidfd);
        close(launching->status);
        fail_errno(failure, STAGE_OTHER, -error, "watching a child");
    }
    free(launching);
    return -1;
}
