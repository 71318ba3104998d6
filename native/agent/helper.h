/* Work that may block, or that touches what a container can make hang, in a forked child of the
 * agent: PID 1 itself only waits for its answer in the loop. */
#ifndef HYPER_HELPER_H
#define HYPER_HELPER_H

#include "codec.h"
#include "fail.h"
#include "request.h"

/* In the child: does the work, fills *answer (the payload of a reply) or *failure. 0 or -1. */
typedef int helper_work(void *argument, struct writer *answer, struct failure *failure);
/* In the agent: failure is NULL or says what went wrong; the answer is freed by the callee. */
typedef void helper_done(void *context, struct writer *answer, const struct failure *failure);

struct helper_task {
    helper_work *work;
    void *argument; /* what it points to is read by the child alone, as it is at this moment */
    int fd; /* the one descriptor that the child keeps beside its answer's, -1: none */
    unsigned milliseconds; /* after that long the child is killed */
    helper_done *done;
    void *context;
};

/* Starts the work. 0 or -errno (then done is not called). */
int helper_run(const struct helper_task *task);
/* The same; what it answers, or why it failed, or why it could not start, goes to the daemon. */
void helper_reply(struct request request, const struct helper_task *task);

#endif
