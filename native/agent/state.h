/* What the agent knows about a container. Inner header of the container side. */
#ifndef HYPER_STATE_H
#define HYPER_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cgroup.h"
#include "container.h"
#include "request.h"
#include "root.h"
#include "spec.h"

enum {
    CONTAINER_PATH = 160, /* room for a path below /c/ID or its cgroup */
    FILES_MOST = 512,     /* private files of one container */
};

enum phase {
    PHASE_ROOT,     /* nothing of it runs; its root is mounted */
    PHASE_STARTING, /* a child is setting up, or what a failed start left is being cleared away */
    PHASE_RUNNING,
    PHASE_ENDING,   /* its first process has ended, the rest is being killed */
    PHASE_REMOVING, /* being unmounted; then it is forgotten */
};

/* A request that waits for the kernel. */
struct freeze_wait {
    bool active, frozen;
    struct request request;
    uint32_t timer;
};

struct container {
    struct container *next;
    char id[ID_MOST + 1];
    enum phase phase;
    bool root_mounted;
    bool viewed; /* at /c/ID/view the root is with its mounts, for archives */
    struct layers layers;
    struct cgroup cgroup;
    pid_t pid; /* of its first process in the guest's first PID namespace; 0: none */
    int pidfd; /* of the same, -1: none */
    int namespaces; /* the CLONE_NEW* bits in which it differs from the agent */
    bool frozen;    /* as asked for */
    char **files;   /* targets of its private files, number N is /c/ID/files/N */
    size_t file_count;
    int64_t oom_told; /* OOM kills of which the daemon has been told */
    bool oom;
    struct freeze_wait freeze;
    struct dns *dns; /* its DNS server, NULL: none */
    struct sockets *sockets; /* of the host, at which it may connect, NULL: none */
    void (*ended)(void *context); /* who waits for the cgroup to be empty */
    void *ended_context;
    uint32_t ended_timer;
    bool remove_wanted;
    struct request remove_request;
};

/* Makes an entry without a root. NULL: no memory. */
struct container *container_new(const char *id);
/* Forgets a container of which nothing is left. */
void container_free(struct container *container);
/* Replies and returns NULL unless there is such a container, running if that is asked for. */
struct container *container_for(struct request request, const char *id, bool running);
/* Makes its cgroup and listens to it. 0 or -1. */
int container_open_cgroup(struct container *container, const struct limits_spec *limits,
                          struct failure *failure);
/* Kills all that is in its cgroup and calls done when that is empty, or after 10 s. */
void container_drain(struct container *container, void (*done)(void *context), void *context);
/* Removes the cgroup and what belongs to one run: pidfd, DNS server, names of private files. */
void container_close_run(struct container *container);
/* Unmounts its root in a helper and forgets it, then calls done with 0 or -errno. */
void container_unmount(struct container *container, void (*done)(void *context, int error),
                       void *context);
/* From the events of its cgroup: answers a freeze that waits, tells of OOM kills. */
void freeze_changed(struct container *container);
void oom_changed(struct container *container);
void freeze_abandon(struct container *container); /* the container ends */

#endif
