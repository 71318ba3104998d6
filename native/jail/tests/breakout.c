/* Runs inside a jail and tries to get out of it, or to reach what it must not. Each attempt is a
 * child of its own and prints one line: "NAME refused ERRNO", "NAME killed SIGNAL" or "NAME DONE",
 * which is what must never be. The attempts are in breakout_*.c;
 * tests/integration/security/test_jail.py reads them.
 *
 * breakout VICTIM: all attempts; VICTIM is the pid of a process of the host.
 * breakout hold: prints "holding" and sleeps. breakout euid: its exit status is its effective uid's
 * lowest bits. breakout fds: prints its open descriptors. */
#include "breakout.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t victim;

/* The attempt's child is killed with all that it has forked: it is a process group. */
static void try_it(const struct attempt *attempt)
{
    int ends[2], report[2] = {0, 0}, status;
    if (pipe(ends))
        exit(3);
    pid_t child = fork();
    if (child < 0)
        exit(4);
    if (!child) {
        long result = attempt->fn();
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
        printf("%s killed %d\n", attempt->name, WTERMSIG(status));
    else if (got != sizeof report || report[0])
        printf("%s DONE\n", attempt->name);
    else
        printf("%s refused %s\n", attempt->name, strerrorname_np(report[1]));
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
    static const struct attempt *const lists[] = {reach_attempts, rights_attempts, kernel_attempts,
                                                  limit_attempts};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        for (const struct attempt *at = lists[i]; at->name; at++) {
            try_it(at);
            fflush(stdout);
        }
    printf("end\n");
    return 0;
}
