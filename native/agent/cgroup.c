/* Control groups. See cgroup.h. */
#include "cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fileio.h"
#include "state.h"

#define TOP "/sys/fs/cgroup"
#define PARENT TOP "/c"
#define SHOWN TOP "/shown"

enum { DEPTH_MOST = 256, EVENTS_ROOM = 512 };

static void enable(const char *group)
{
    /* One by one: a kernel that lacks one would refuse all. */
    static const char *const controllers[] = {"+memory", "+pids", "+cpu", "+io", "+cpuset"};
    char path[64];
    snprintf(path, sizeof path, "%s/cgroup.subtree_control", group);
    for (size_t i = 0; i < sizeof controllers / sizeof *controllers; i++)
        write_file(AT_FDCWD, path, controllers[i]);
}

int cgroups_init(void)
{
    /* nsdelegate: a container that may write to its cgroups can't lift its own limits. */
    if (mount("cgroup2", TOP, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "nsdelegate,memory_recursiveprot") &&
        errno != EBUSY)
        return -errno;
    enable(TOP);
    if (mkdir(PARENT, 0755) && errno != EEXIST)
        return -errno;
    enable(PARENT);
    if (mkdir(SHOWN, 0755) && errno != EEXIST)
        return -errno;
    write_file(AT_FDCWD, SHOWN "/cgroup.subtree_control", "+cpu");
    return 0;
}

void cgroup_none(struct cgroup *cgroup)
{
    *cgroup = (struct cgroup){-1, -1, -1};
}

static int set_number(const struct cgroup *cgroup, const char *file, int64_t value,
                      struct failure *failure)
{
    char text[32];
    if (!value)
        return 0;
    if (value < 0)
        snprintf(text, sizeof text, "max");
    else
        snprintf(text, sizeof text, "%lld", (long long)value);
    int error = write_file(cgroup->dir, file, text);
    return error ? fail_errno(failure, STAGE_CGROUP, -error, "writing %s to %s", text, file) : 0;
}

int cgroup_shown(const char *id, const char *file)
{
    char path[CONTAINER_PATH];
    snprintf(path, sizeof path, SHOWN "/%s/%s", id, file);
    return open(path, O_PATH | O_CLOEXEC);
}

static int show_cpu(const char *id, const char *text)
{
    char path[CONTAINER_PATH];
    snprintf(path, sizeof path, SHOWN "/%s/cpu.max", id);
    return write_file(AT_FDCWD, path, text);
}

/* Two clocks that each take away what is over would take it away twice: where the host divides CPU
 * time, the container has all of the guest's, and cpu.max of a group without processes says what
 * it was given. */
static int set_cpu(const struct cgroup *cgroup, const char *id, const struct limits_spec *limits,
                   struct failure *failure)
{
    char text[64] = "max";
    int64_t quota = limits->cpu_quota_us, period = limits->cpu_period_us;
    if (!quota && !period)
        return 0;
    if (quota > 0)
        snprintf(text, sizeof text, "%lld", (long long)quota);
    if (period > 0)
        snprintf(text + strlen(text), sizeof text - strlen(text), " %lld", (long long)period);
    int error = write_file(cgroup->dir, "cpu.max", limits->cpu_by_host ? "max" : text);
    if (!error)
        error = show_cpu(id, text);
    return error ? fail_errno(failure, STAGE_CGROUP, -error, "writing %s to cpu.max", text) : 0;
}

int cgroup_limit(const struct cgroup *cgroup, const char *id, const struct limits_spec *limits,
                 struct failure *failure)
{
    const struct {
        const char *file;
        int64_t value;
    } numbers[] = {
        {"memory.max", limits->memory_max},     {"memory.low", limits->memory_low},
        {"memory.swap.max", limits->swap_max},  {"pids.max", limits->pids_max},
        {"cpu.weight", limits->cpu_weight},     {"memory.oom.group", limits->oom_group},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (set_number(cgroup, numbers[i].file, numbers[i].value, failure))
            return -1;
    return set_cpu(cgroup, id, limits, failure);
}

int cgroup_make(struct cgroup *cgroup, const char *id, const struct limits_spec *limits,
                struct failure *failure)
{
    char path[CONTAINER_PATH];
    snprintf(path, sizeof path, PARENT "/%s", id);
    cgroup_none(cgroup);
    if (mkdir(path, 0755) && errno != EEXIST)
        return fail_errno(failure, STAGE_CGROUP, errno, "making %s", path);
    char shown[CONTAINER_PATH];
    snprintf(shown, sizeof shown, SHOWN "/%s", id);
    if (mkdir(shown, 0755) && errno != EEXIST) {
        fail_errno(failure, STAGE_CGROUP, errno, "making %s", shown);
        cgroup_remove(cgroup, id);
        return -1;
    }
    cgroup->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cgroup->dir >= 0)
        cgroup->events = openat(cgroup->dir, "cgroup.events", O_RDONLY | O_CLOEXEC);
    if (cgroup->events < 0) {
        fail_errno(failure, STAGE_CGROUP, errno, "opening %s", path);
        cgroup_remove(cgroup, id);
        return -1;
    }
    cgroup->memory_events = openat(cgroup->dir, "memory.events", O_RDONLY | O_CLOEXEC);
    if (!cgroup_limit(cgroup, id, limits, failure))
        return 0;
    cgroup_remove(cgroup, id);
    return -1;
}

/* Removes what the container has made below its own group. */
static void remove_children(int dir, int depth)
{
    DIR *list = fdopendir(dir);
    if (!list) {
        close(dir);
        return;
    }
    struct dirent *entry;
    while (depth < DEPTH_MOST && (entry = readdir(list))) {
        if (entry->d_type != DT_DIR || *entry->d_name == '.')
            continue;
        int child = openat(dir, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (child >= 0)
            remove_children(child, depth + 1);
        unlinkat(dir, entry->d_name, AT_REMOVEDIR);
    }
    closedir(list);
}

int cgroup_remove(struct cgroup *cgroup, const char *id)
{
    char path[CONTAINER_PATH];
    int fds[] = {cgroup->dir, cgroup->events, cgroup->memory_events};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    cgroup_none(cgroup);
    snprintf(path, sizeof path, SHOWN "/%s", id);
    rmdir(path);
    snprintf(path, sizeof path, PARENT "/%s", id);
    if (!rmdir(path) || errno == ENOENT)
        return 0;
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir >= 0)
        remove_children(dir, 0);
    return rmdir(path) && errno != ENOENT ? -errno : 0;
}

int cgroup_kill(const struct cgroup *cgroup)
{
    return write_file(cgroup->dir, "cgroup.kill", "1");
}

int cgroup_freeze(const struct cgroup *cgroup, bool frozen)
{
    return write_file(cgroup->dir, "cgroup.freeze", frozen ? "1" : "0");
}

/* Reading from the beginning is also what makes poll(2) wait for the next change. */
static int64_t event_value(int fd, const char *key)
{
    char text[EVENTS_ROOM];
    ssize_t length = fd < 0 ? 0 : pread(fd, text, sizeof text - 1, 0);
    text[length > 0 ? length : 0] = 0;
    return value_of(text, key, 0);
}

bool cgroup_populated(const struct cgroup *cgroup)
{
    return event_value(cgroup->events, "populated") != 0;
}

bool cgroup_frozen(const struct cgroup *cgroup)
{
    return event_value(cgroup->events, "frozen") != 0;
}

int64_t cgroup_oom_kills(const struct cgroup *cgroup)
{
    return event_value(cgroup->memory_events, "oom_kill");
}
