/* Control groups, version 2 (Documentation/admin-guide/cgroup-v2.rst): /sys/fs/cgroup/c/ID, and
 * /sys/fs/cgroup/shown/ID, which has no processes: its cpu.max is what the container sees. */
#ifndef HYPER_CGROUP_H
#define HYPER_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "fail.h"
#include "spec.h"

/* The open files of one container's group; all descriptors are -1 when there is none. */
struct cgroup {
    int dir;
    int events;        /* cgroup.events: whether it is populated, whether frozen */
    int memory_events; /* -1 too where the kernel has no memory controller */
};

int cgroups_init(void); /* mounts the hierarchy, enables the controllers: 0 or -errno */
void cgroup_none(struct cgroup *cgroup);
/* Makes the group of a container with its limits. 0 or -1; after a failure there is none. */
int cgroup_make(struct cgroup *cgroup, const char *id, const struct limits_spec *limits,
                struct failure *failure);
int cgroup_limit(const struct cgroup *cgroup, const char *id, const struct limits_spec *limits,
                 struct failure *failure);
/* Opens (O_PATH) a file of the group that is shown. -1: there is none. */
int cgroup_shown(const char *id, const char *file);
/* Closes the files and removes the group with its children. 0 or -errno (EBUSY: not empty). */
int cgroup_remove(struct cgroup *cgroup, const char *id);
int cgroup_kill(const struct cgroup *cgroup); /* SIGKILL to all in it: 0 or -errno */
int cgroup_freeze(const struct cgroup *cgroup, bool frozen);
bool cgroup_populated(const struct cgroup *cgroup);
bool cgroup_frozen(const struct cgroup *cgroup);
/* How often the kernel killed something in it for want of memory. */
int64_t cgroup_oom_kills(const struct cgroup *cgroup);

#endif
