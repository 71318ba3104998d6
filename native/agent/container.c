/* The table of containers, their end and their removal. See container.h and state.h. */
#include "container.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "dns.h"
#include "sockets.h"
#include "helper.h"
#include "loop.h"
#include "net.h"
#include "state.h"

enum { DRAIN_MS = 10000, UNMOUNT_MS = 60000, POWEROFF_ROUNDS = 1000, POWEROFF_STEP_MS = 2 };

static struct container *containers;

int containers_init(void)
{
    int error = cgroups_init();
    return error ? error : net_loopback_up();
}

/* The table */

struct container *container_find(const char *id)
{
    struct container *at = containers;
    while (at && strcmp(at->id, id))
        at = at->next;
    return at;
}

void container_each(void (*fn)(void *context, const char *id), void *context)
{
    for (struct container *at = containers; at; at = at->next)
        if (at->root_mounted)
            fn(context, at->id);
}

struct container *container_new(const char *id)
{
    struct container *container = calloc(1, sizeof *container);
    if (!container)
        return NULL;
    snprintf(container->id, sizeof container->id, "%s", id);
    container->pidfd = -1;
    cgroup_none(&container->cgroup);
    container->next = containers;
    containers = container;
    return container;
}

void container_free(struct container *container)
{
    for (struct container **at = &containers; *at; at = &(*at)->next)
        if (*at == container) {
            *at = container->next;
            break;
        }
    free(container);
}

struct container *container_for(struct request request, const char *id, bool running)
{
    struct container *container = container_find(id);
    if (!container)
        reply_failure(request, ENOENT, STAGE_OTHER, "no such container: %s", id);
    else if (running && container->phase != PHASE_RUNNING)
        reply_failure(request, ESRCH, STAGE_OTHER, "container %s is not running", id);
    else
        return container;
    return NULL;
}

/* Events of its cgroup */

static void drained(struct container *container)
{
    void (*done)(void *) = container->ended;
    void *context = container->ended_context;
    if (container->ended_timer)
        loop_cancel(container->ended_timer);
    container->ended_timer = 0;
    container->ended = NULL;
    done(context);
}

static void on_cgroup_event(void *context, uint32_t events)
{
    (void)events;
    struct container *container = context;
    bool empty = !cgroup_populated(&container->cgroup);
    freeze_changed(container);
    if (container->ended && empty)
        drained(container);
}

static void on_memory_event(void *context, uint32_t events)
{
    (void)events;
    oom_changed(context);
}

int container_open_cgroup(struct container *container, const struct limits_spec *limits,
                          struct failure *failure)
{
    struct cgroup *cgroup = &container->cgroup;
    if (cgroup_make(cgroup, container->id, limits, failure))
        return -1;
    container->oom = false;
    container->frozen = false;
    container->oom_told = cgroup_oom_kills(cgroup);
    int error = loop_add(cgroup->events, EPOLLPRI | EPOLLET, on_cgroup_event, container);
    if (!error && cgroup->memory_events >= 0)
        error = loop_add(cgroup->memory_events, EPOLLPRI | EPOLLET, on_memory_event, container);
    if (!error)
        return 0;
    loop_remove(cgroup->events);
    cgroup_remove(cgroup, container->id);
    return fail_errno(failure, STAGE_CGROUP, -error, "watching the cgroup");
}

/* The end of a run */

static void on_drain_late(void *context)
{
    struct container *container = context;
    container->ended_timer = 0;
    drained(container);
}

void container_drain(struct container *container, void (*done)(void *context), void *context)
{
    container->ended = done;
    container->ended_context = context;
    if (container->cgroup.dir >= 0) {
        cgroup_kill(&container->cgroup);
        if (cgroup_populated(&container->cgroup))
            container->ended_timer = loop_after(DRAIN_MS, on_drain_late, container);
    }
    if (!container->ended_timer)
        drained(container);
}

static void free_files(struct container *container)
{
    for (size_t i = 0; i < container->file_count; i++)
        free(container->files[i]);
    free(container->files);
    container->files = NULL;
    container->file_count = 0;
}

void container_close_run(struct container *container)
{
    oom_changed(container);
    freeze_abandon(container);
    loop_remove(container->cgroup.events);
    loop_remove(container->cgroup.memory_events);
    cgroup_remove(&container->cgroup, container->id);
    if (container->pidfd >= 0)
        close(container->pidfd);
    container->pidfd = -1;
    container->pid = 0;
    dns_end(container->dns);
    container->dns = NULL;
    sockets_end(container->sockets);
    container->sockets = NULL;
    free_files(container);
}

/* What the core waits for, while this side has its own work at the end. */
struct ending {
    struct container *container;
    void (*done)(void *context);
    void *context;
};

static void begin_removal(struct container *container, struct request request);

static void on_ended(void *context)
{
    struct ending ending = *(struct ending *)context;
    struct container *container = ending.container;
    free(context);
    container_close_run(container);
    container->phase = PHASE_ROOT;
    bool remove_wanted = container->remove_wanted;
    struct request request = container->remove_request;
    ending.done(ending.context);
    if (remove_wanted)
        begin_removal(container, request);
}

void container_ended(struct container *container, void (*done)(void *context), void *context)
{
    bool running = container && container->phase == PHASE_RUNNING;
    struct ending *ending = running ? malloc(sizeof *ending) : NULL;
    if (!ending) {
        done(context);
        return;
    }
    *ending = (struct ending){container, done, context};
    container->phase = PHASE_ENDING;
    container_drain(container, on_ended, ending);
}

bool container_oom(const struct container *container)
{
    return container->oom;
}

/* Removal */

struct unmounting {
    struct container *container;
    void (*done)(void *context, int error);
    void *context;
};

static int unmount_work(void *argument, struct writer *answer, struct failure *failure)
{
    (void)answer;
    const struct container *container = argument;
    int error = root_unmount(container->id, &container->layers);
    return error ? fail_errno(failure, STAGE_ROOT, -error, "unmounting the root") : 0;
}

static void on_unmounted(void *context, struct writer *answer, const struct failure *failure)
{
    struct unmounting unmounting = *(struct unmounting *)context;
    free(context);
    writer_free(answer);
    container_free(unmounting.container);
    unmounting.done(unmounting.context, failure ? -failure->error : 0);
}

void container_unmount(struct container *container, void (*done)(void *context, int error),
                       void *context)
{
    struct unmounting *unmounting = malloc(sizeof *unmounting);
    container->phase = PHASE_REMOVING;
    container->root_mounted = false;
    layers_drop(&container->layers);
    struct helper_task task = {.work = unmount_work,
                               .argument = container,
                               .fd = -1,
                               .milliseconds = UNMOUNT_MS,
                               .done = on_unmounted,
                               .context = unmounting};
    if (unmounting) {
        *unmounting = (struct unmounting){container, done, context};
        if (!helper_run(&task))
            return;
    }
    free(unmounting);
    int error = root_unmount(container->id, &container->layers);
    container_free(container);
    done(context, error);
}

static void on_removed(void *context, int error)
{
    struct request request = *(struct request *)context;
    free(context);
    if (error)
        reply_failure(request, -error, STAGE_ROOT, "the container's root is still in use");
    else
        reply(request, NULL);
}

static void begin_removal(struct container *container, struct request request)
{
    struct request *kept = malloc(sizeof *kept);
    if (!kept) {
        reply_failure(request, ENOMEM, STAGE_OTHER, "no memory");
        return;
    }
    *kept = request;
    container_unmount(container, on_removed, kept);
}

void handle_container_remove(struct request request, struct reader *payload)
{
    char id[ID_MOST + 1];
    if (!read_ref(payload, id))
        return;
    struct container *container = container_for(request, id, false);
    if (!container)
        return;
    if (container->phase == PHASE_ROOT) {
        begin_removal(container, request);
    } else if (container->phase == PHASE_STARTING || container->phase == PHASE_REMOVING ||
               container->remove_wanted) {
        reply_failure(request, EBUSY, STAGE_OTHER, "container %s is being started or removed", id);
    } else {
        /* Goes on when its first process has been reaped. */
        container->remove_wanted = true;
        container->remove_request = request;
        cgroup_kill(&container->cgroup);
    }
}

/* Power off */

static void wait_until_empty(const struct container *container)
{
    for (int i = 0; i < POWEROFF_ROUNDS && cgroup_populated(&container->cgroup); i++)
        nanosleep(&(struct timespec){.tv_nsec = POWEROFF_STEP_MS * 1000000}, NULL);
}

void containers_unmount_all(void)
{
    for (struct container *at = containers; at; at = at->next)
        if (at->cgroup.dir >= 0)
            cgroup_kill(&at->cgroup);
    for (struct container *at = containers; at; at = at->next) {
        if (at->cgroup.dir >= 0)
            wait_until_empty(at);
        layers_drop(&at->layers);
        root_unmount(at->id, &at->layers);
    }
}
