/* Starting a process in a container: clone3(2) in the agent, the setting up in the child, and what
 * the child says meanwhile, so that PID 1 never waits. */
#ifndef HYPER_LAUNCH_H
#define HYPER_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fail.h"
#include "process.h"
#include "spec.h"
#include "state.h"

/* A namespace of a sibling that the child enters. */
struct joined {
    int namespaces; /* CLONE_NEW* bits */
    int pidfd;      /* of a process in them */
};

enum { JOINED_MOST = 8 };

/* What the child has to do. */
struct launch {
    const struct container_spec *spec; /* of an exec: id, process and privileged only */
    const struct layers *layers;       /* NULL: the root is already mounted */
    bool exec; /* enter the namespaces of joined[0], make nothing new */
    int stdio[3]; /* -1 with a terminal */
    int cgroup_dir;
    unsigned short dns_port; /* at which dns_sockets listens, if the spec wants DNS */
    struct joined joined[JOINED_MOST];
    size_t joined_count;
};

/* How it went. On success the process runs and pidfd is the callee's to close. */
struct launched {
    pid_t pid;
    int pidfd;
    int64_t started_ns;
    int dns_udp, dns_tcp; /* the DNS server's sockets, the callee's to close; -1: none */
};
/* failure is NULL when the program was executed. The child is dead or dying otherwise. */
typedef void launched_fn(void *context, const struct launched *launched,
                         const struct failure *failure);

/* Begins; `launch` is not needed afterwards. 0, or -1 with *failure and done is not called. */
int launch_begin(const struct launch *launch, struct process *process, launched_fn *done,
                 void *context, struct failure *failure);

/* The child's side (child.c). */
_Noreturn void child_main(const struct launch *launch, int status);

/* What goes over the status socket, one packet each; descriptors ride along. */
enum report_kind { REPORT_TERMINAL = 1, REPORT_DNS, REPORT_READY, REPORT_FAILED };
struct report {
    enum report_kind kind;
    int64_t time_ns; /* READY: wall clock just before execve */
    struct failure failure;
};
int report_send(int status, const struct report *report, const int *fds, size_t count);
/* Bytes of a report, 0 at the end, -1 with errno. *count in: room in fds, out: how many came. */
ssize_t report_receive(int status, struct report *report, int *fds, size_t *count);

#endif
