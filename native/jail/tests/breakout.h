/* Attempts to get out of a jail, one file per kind. See breakout.c. */
#ifndef HYPER_BREAKOUT_H
#define HYPER_BREAKOUT_H

#include <errno.h>
#include <sys/types.h>

/* An attempt returns what a system call returns: -1 with errno if it was refused. */
typedef long attempt_fn(void);

struct attempt {
    const char *name; /* NULL ends a list */
    attempt_fn *fn;
};

extern const struct attempt reach_attempts[], rights_attempts[], kernel_attempts[], limit_attempts[];
extern pid_t victim;

static inline long refused(int error)
{
    errno = error;
    return -1;
}

#endif
