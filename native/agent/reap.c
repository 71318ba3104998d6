/* Reaping: the agent is PID 1, so every orphan of the guest ends here (signalfd(2), waitpid(2)). */
#include "reap.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"

enum { EARLY = 256, EARLY_SECONDS = 10 };

struct watcher {
    struct watcher *next;
    pid_t pid;
    reap_fn *fn;
    void *context;
    bool early; /* ended before somebody asked: told by a timer */
    int status;
    int64_t ended_ns;
};

/* Ends of children for whom nobody has asked yet: a program may be over before the one who started
 * it learns that it runs. The oldest is overwritten. */
struct early {
    pid_t pid;
    int status;
    int64_t ended_ns, at;
};

static struct watcher *watchers;
static struct early early[EARLY];
static unsigned early_next;
static int signal_fd = -1;

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void tell(struct watcher **at, int status, int64_t ended_ns)
{
    struct watcher watcher = **at;
    free(*at);
    *at = watcher.next;
    watcher.fn(watcher.context, status, ended_ns);
}

static void reaped(pid_t pid, int status)
{
    int64_t ended_ns = clock_ns(CLOCK_REALTIME);
    for (struct watcher **at = &watchers; *at; at = &(*at)->next)
        if ((*at)->pid == pid && !(*at)->early) {
            tell(at, status, ended_ns);
            return;
        }
    early[early_next++ % EARLY] =
        (struct early){pid, status, ended_ns, clock_ns(CLOCK_MONOTONIC)};
}

static void on_signal(void *context, uint32_t events)
{
    (void)context, (void)events;
    struct signalfd_siginfo infos[8];
    while (read(signal_fd, infos, sizeof infos) == (ssize_t)sizeof infos)
        continue;
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid > 0)
            reaped(pid, status);
        else if (!pid || errno != EINTR)
            return;
    }
}

int reap_init(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, NULL))
        return -errno;
    signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd < 0)
        return -errno;
    return loop_add(signal_fd, EPOLLIN, on_signal, NULL);
}

static void tell_early(void *context)
{
    for (struct watcher **at = &watchers; *at; at = &(*at)->next)
        if (*at == context && (*at)->early) {
            tell(at, (*at)->status, (*at)->ended_ns);
            return;
        }
}

static struct early *find_early(pid_t pid)
{
    int64_t oldest = clock_ns(CLOCK_MONOTONIC) - EARLY_SECONDS * INT64_C(1000000000);
    for (unsigned i = 0; i < EARLY; i++)
        if (early[i].pid == pid && early[i].at >= oldest)
            return &early[i];
    return NULL;
}

void reap_made(pid_t pid)
{
    struct early *ended = find_early(pid);
    if (ended)
        ended->pid = 0;
}

int reap_watch(pid_t pid, reap_fn *fn, void *context)
{
    struct watcher *watcher = malloc(sizeof *watcher);
    if (!watcher)
        return -ENOMEM;
    *watcher = (struct watcher){.next = watchers, .pid = pid, .fn = fn, .context = context};
    struct early *ended = find_early(pid);
    if (ended) {
        watcher->early = true;
        watcher->status = ended->status;
        watcher->ended_ns = ended->ended_ns;
        if (!loop_after(0, tell_early, watcher)) {
            free(watcher);
            return -ENOMEM;
        }
        ended->pid = 0;
    }
    watchers = watcher;
    return 0;
}

void reap_forget(pid_t pid)
{
    for (struct watcher **at = &watchers; *at; at = &(*at)->next)
        if ((*at)->pid == pid) {
            struct watcher *watcher = *at;
            *at = watcher->next;
            free(watcher);
            return;
        }
}

void child_signals(void)
{
    /* The kernel starts PID 1 with every handler default and nothing blocked, so that what reap_init
     * changed is all. */
    signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void sort(int *fds, size_t count)
{
    for (size_t i = 1; i < count; i++)
        for (size_t j = i; j && fds[j] < fds[j - 1]; j--) {
            int fd = fds[j];
            fds[j] = fds[j - 1];
            fds[j - 1] = fd;
        }
}

void child_close_all(int *keep, size_t count)
{
    sort(keep, count);
    unsigned first = 0;
    for (size_t i = 0; i < count; i++) {
        if ((unsigned)keep[i] > first)
            syscall(SYS_close_range, first, (unsigned)keep[i] - 1, 0U);
        first = (unsigned)keep[i] + 1;
    }
    syscall(SYS_close_range, first, ~0U, 0U);
}
