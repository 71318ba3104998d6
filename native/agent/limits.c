/* Requests about a container's cgroup: FREEZE, UPDATE; and telling of OOM kills. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "helper.h"
#include "loop.h"
#include "state.h"

enum { FREEZE_MS = 10000, UPDATE_MS = 30000 };

/* OOM */

void oom_changed(struct container *container)
{
    int64_t kills = cgroup_oom_kills(&container->cgroup);
    if (kills <= container->oom_told)
        return;
    container->oom_told = kills;
    container->oom = true;
    struct writer event = {0};
    write_text(&event, F_CONTAINER_REF_ID, container->id);
    send_event(EVENT_KIND_OOM, &event);
}

/* FREEZE */

static struct request freeze_over(struct container *container)
{
    struct freeze_wait *wait = &container->freeze;
    if (wait->timer)
        loop_cancel(wait->timer);
    wait->timer = 0;
    wait->active = false;
    return wait->request;
}

void freeze_changed(struct container *container)
{
    if (container->freeze.active &&
        cgroup_frozen(&container->cgroup) == container->freeze.frozen)
        reply(freeze_over(container), NULL);
}

void freeze_abandon(struct container *container)
{
    if (container->freeze.active)
        reply_failure(freeze_over(container), ESRCH, STAGE_CGROUP, "container %s has ended",
                      container->id);
}

/* A process that can't be stopped, in a read of a dead disk for instance: as before, then. */
static void on_freeze_late(void *context)
{
    struct container *container = context;
    bool wanted = container->freeze.frozen;
    container->freeze.timer = 0;
    struct request request = freeze_over(container);
    if (wanted) {
        cgroup_freeze(&container->cgroup, false);
        container->frozen = false;
    }
    reply_failure(request, ETIMEDOUT, STAGE_CGROUP, "container %s does not %s", container->id,
                  wanted ? "freeze" : "thaw");
}

static void freeze(struct container *container, struct request request, bool frozen)
{
    struct freeze_wait *wait = &container->freeze;
    if (wait->active) {
        reply_failure(request, EBUSY, STAGE_CGROUP, "container %s is freezing or thawing",
                      container->id);
        return;
    }
    int error = cgroup_freeze(&container->cgroup, frozen);
    if (error) {
        reply_failure(request, -error, STAGE_CGROUP, "writing cgroup.freeze");
        return;
    }
    container->frozen = frozen;
    *wait = (struct freeze_wait){true, frozen, request, 0};
    wait->timer = loop_after(FREEZE_MS, on_freeze_late, container);
    freeze_changed(container);
}

void handle_freeze(struct request request, struct reader *payload)
{
    char id[ID_MOST + 1] = "";
    bool frozen = false;
    struct field field;
    while (reader_next(payload, &field)) {
        if (field.tag == F_FREEZE_ID && field.length <= ID_MOST)
            snprintf(id, sizeof id, "%.*s", (int)field.length, (const char *)field.data);
        else if (field.tag == F_FREEZE_FROZEN)
            frozen = field_flag(payload, &field);
        else
            payload->bad = true;
    }
    payload->bad |= !id_good(id);
    if (payload->bad)
        return;
    struct container *container = container_for(request, id, true);
    if (container)
        freeze(container, request, frozen);
}

/* UPDATE: a lower memory limit makes the kernel reclaim before the write returns. */

static int update_work(void *argument, struct writer *answer, struct failure *failure)
{
    (void)answer;
    const struct container_spec *spec = argument;
    char path[CONTAINER_PATH];
    snprintf(path, sizeof path, "/sys/fs/cgroup/c/%s", spec->id);
    struct cgroup cgroup = {.dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (cgroup.dir < 0) { /* it may have ended meanwhile */
        int error = errno == ENOENT ? ESRCH : errno;
        return fail_errno(failure, STAGE_CGROUP, error, "opening %s", path);
    }
    return cgroup_limit(&cgroup, spec->id, &spec->limits, failure);
}

void handle_update(struct request request, struct reader *payload)
{
    struct container_spec spec;
    if (!read_update(payload, &spec))
        return;
    if (container_for(request, spec.id, true))
        helper_reply(request, &(struct helper_task){.work = update_work,
                                                    .argument = &spec,
                                                    .fd = -1,
                                                    .milliseconds = UPDATE_MS});
    arena_free(&spec.arena);
}
