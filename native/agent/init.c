/* `docker run --init`: PID 1 of a container that starts the program, forwards signals to it, reaps
 * orphans, and ends with the program's exit code, as docker-init (tini) does. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "reap.h"

/* Ends the process when the program has ended; the status of others is of no interest. */
static void reap(pid_t program)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == program)
            _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static _Noreturn void serve(pid_t program, const sigset_t *all)
{
    for (;;) {
        siginfo_t info;
        int signal_number = sigwaitinfo(all, &info);
        if (signal_number > 0 && signal_number != SIGCHLD)
            kill(program, signal_number);
        reap(program);
    }
}

/* prctl(2), PR_SET_MM: the heap lies below the stack where the arguments are, so the beginning is
 * moved first. Only how it looks depends on it: a kernel that says no is let alone. */
void init_title(char *const *argv)
{
    static const char head[] = "/sbin/docker-init\0--";
    size_t length = sizeof head;
    for (char *const *at = argv; *at; at++)
        length += strlen(*at) + 1;
    char *title = malloc(length), *end = title + sizeof head;
    if (!title)
        return;
    memcpy(title, head, sizeof head);
    for (char *const *at = argv; *at; at++)
        end = stpcpy(end, *at) + 1;
    if (!prctl(PR_SET_MM, PR_SET_MM_ARG_START, title, 0, 0))
        prctl(PR_SET_MM, PR_SET_MM_ARG_END, end, 0, 0);
}

int init_split(bool tty, struct failure *failure)
{
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    /* Faults of this process itself must still kill it. */
    const int faults[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&all, faults[i]);
    sigprocmask(SIG_SETMASK, &all, NULL);
    pid_t program = fork();
    if (program < 0)
        return fail_errno(failure, STAGE_OTHER, errno, "fork");
    if (program) {
        int keep[] = {0, 1, 2};
        child_close_all(keep, 3);
        prctl(PR_SET_NAME, "docker-init");
        serve(program, &all);
    }
    /* The status socket stays here alone: it closes when the program is executed. */
    setpgid(0, 0);
    if (tty) {
        /* Blocked by now, or the kernel would stop us for asking from the background. */
        tcsetpgrp(0, getpid());
    }
    sigprocmask(SIG_SETMASK, &none, NULL);
    return 0;
}
