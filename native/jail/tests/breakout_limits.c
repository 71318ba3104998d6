/* Limits. See breakout.c. */
#include "breakout.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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

const struct attempt limit_attempts[] = {
    {"more-descriptors", more_descriptors},
    {"more-processes", more_processes},
    {"larger-files", larger_files},
    {"core-limit", other_core_limit},
    {"core-dump", dump_core},
    {"fork-on-and-on", fork_on_and_on},
    {"write-on-and-on", write_on_and_on},
    {NULL, NULL},
};
