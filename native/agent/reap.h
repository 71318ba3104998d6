/* Children of the agent: what each of them does first, and who is told of its end. */
#ifndef HYPER_REAP_H
#define HYPER_REAP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Called with the status of waitpid(2) and the wall clock, ns since the epoch. */
typedef void reap_fn(void *context, int status, int64_t ended_ns);

int reap_init(void); /* blocks SIGCHLD, ignores SIGPIPE, listens in the loop: 0 or -errno */
/* A child was made just now: what is still known of an earlier one with its pid is forgotten. */
void reap_made(pid_t pid);
/* Tells fn once of the end of a child, also if it has been reaped already, then from the loop.
 * A child for which nobody asks within 10 s of its end is forgotten. 0 or -ENOMEM. */
int reap_watch(pid_t pid, reap_fn *fn, void *context);
void reap_forget(pid_t pid); /* nobody wants to know any more; it is still reaped */

/* First thing in every forked child: signals as a new program expects them (handlers default,
 * nothing blocked, SIGPIPE not ignored). */
void child_signals(void);
/* In a child that does not exec: closes every descriptor but `keep` (which it may reorder). Else the
 * child holds other containers' pipes and they never end. */
void child_close_all(int *keep, size_t count);

#endif
