/* CONTAINER_START: from the message to a running first process, or to nothing at all. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dns.h"
#include "launch.h"
#include "sockets.h"
#include "state.h"

#define JOINABLE (CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWCGROUP)

struct starting {
    struct request request;
    struct container_spec spec;
    struct container *container;
    struct process *process;
    struct failure failure;
};

static void forget(struct starting *starting)
{
    arena_free(&starting->spec.arena);
    free(starting);
}

/* Failure */

static void on_cleared(void *context, int error)
{
    (void)error;
    struct starting *starting = context;
    const struct failure *failure = &starting->failure;
    reply_failure(starting->request, failure->error, failure->stage, "%s", failure->detail);
    forget(starting);
}

static void on_drained(void *context)
{
    struct starting *starting = context;
    container_close_run(starting->container);
    container_unmount(starting->container, on_cleared, starting);
}

/* Leaves nothing of the container, then says why. */
static void give_up(struct starting *starting)
{
    if (starting->process)
        process_discard(starting->process);
    starting->process = NULL;
    container_drain(starting->container, on_drained, starting);
}

/* Success */

static void keep_file_names(struct container *container, const struct container_spec *spec)
{
    container->files = calloc(FILES_MOST, sizeof *container->files);
    for (size_t i = 0; container->files && i < spec->mount_count; i++) {
        if (spec->mounts[i].kind != MOUNT_KIND_FILE)
            continue;
        char *name = strdup(spec->mounts[i].target);
        if (!name)
            return;
        container->files[container->file_count++] = name;
    }
}

static int joined_namespaces(const struct container_spec *spec)
{
    int joined = 0;
    for (size_t i = 0; i < spec->join_count; i++)
        joined |= spec->joins[i].namespace;
    return joined;
}

static void on_launched(void *context, const struct launched *launched,
                        const struct failure *failure)
{
    struct starting *starting = context;
    struct container *container = starting->container;
    const struct container_spec *spec = &starting->spec;
    if (failure) {
        starting->failure = *failure;
        give_up(starting);
        return;
    }
    container->pid = launched->pid;
    container->pidfd = launched->pidfd;
    container->namespaces =
        spec->namespaces | joined_namespaces(spec) | CLONE_NEWNS | CLONE_NEWNET;
    container->root_mounted = true;
    container->phase = PHASE_RUNNING;
    if (launched->dns_udp >= 0)
        container->dns = dns_serve(container->id, launched->dns_udp, launched->dns_tcp);
    keep_file_names(container, spec);
    struct writer started = {0};
    write_number(&started, F_STARTED_PID, launched->pid);
    write_number(&started, F_STARTED_STARTED_NS, launched->started_ns);
    reply(starting->request, &started);
    process_started(starting->process, launched->pid, launched->started_ns);
    forget(starting);
}

/* Preparation */

static int join_siblings(struct starting *starting, struct launch *launch)
{
    const struct container_spec *spec = &starting->spec;
    for (size_t i = 0; i < spec->join_count; i++) {
        const struct join_spec *join = &spec->joins[i];
        const struct container *sibling = container_find(join->container);
        if (!sibling || sibling->phase != PHASE_RUNNING)
            return fail(&starting->failure, STAGE_NAMESPACE, ESRCH,
                        "cannot join namespaces of a non running container: %s", join->container);
        if (!join->namespace || join->namespace & ~JOINABLE)
            return fail(&starting->failure, STAGE_NAMESPACE, EINVAL,
                        "namespaces 0x%x can't be joined", (unsigned)join->namespace);
        launch->joined[launch->joined_count++] =
            (struct joined){join->namespace, sibling->pidfd};
    }
    return 0;
}

static int prepare_cgroup(struct starting *starting, struct launch *launch)
{
    struct container *container = starting->container;
    const struct container_spec *spec = &starting->spec;
    if (container_open_cgroup(container, &spec->limits, &starting->failure))
        return -1;
    launch->cgroup_dir = container->cgroup.dir;
    return 0;
}

static int prepare_root(struct starting *starting, struct launch *launch)
{
    struct container *container = starting->container;
    if (container->root_mounted)
        return 0;
    launch->layers = &container->layers;
    int error = layers_take(&starting->spec.root, &container->layers);
    return error ? fail_errno(&starting->failure, STAGE_ROOT, -error, "taking layers") : 0;
}

/* The sockets listen before anything of the container runs; the child mounts them. */
static int prepare_sockets(struct starting *starting)
{
    const struct container_spec *spec = &starting->spec;
    struct container *container = starting->container;
    for (size_t i = 0; i < spec->mount_count; i++) {
        const struct mount_spec *mount = &spec->mounts[i];
        char path[SOCKET_PATH];
        if (mount->kind != MOUNT_KIND_SOCKET)
            continue;
        if (!container->sockets && !(container->sockets = sockets_new(container->id)))
            return fail(&starting->failure, STAGE_MOUNT, ENOMEM, "no memory for sockets");
        socket_path(path, container->id, i);
        int error = sockets_listen(container->sockets, path, mount->source);
        if (!error && (lchown(path, mount->uid, mount->gid) || chmod(path, mount->mode)))
            error = -errno;
        if (error)
            return fail_errno(&starting->failure, STAGE_MOUNT, -error, "listening at %s",
                              mount->target);
    }
    return 0;
}

static int prepare_process(struct starting *starting, struct launch *launch)
{
    const struct process_spec *process = &starting->spec.process;
    struct process_names names = {.handle = process->handle,
                                  .stdin_id = process->stdin_id,
                                  .stdout_id = process->stdout_id,
                                  .stderr_id = process->stderr_id,
                                  .init = true,
                                  .tty = process->tty};
    snprintf(names.container, sizeof names.container, "%s", starting->spec.id);
    starting->process = process_new(&names);
    if (!starting->process)
        return fail_errno(&starting->failure, STAGE_OTHER, errno, "taking handle %u", names.handle);
    int error = process->tty ? 0 : process_pipes(starting->process, launch->stdio);
    return error ? fail_errno(&starting->failure, STAGE_OTHER, -error, "making pipes") : 0;
}

static void begin(struct starting *starting)
{
    struct launch launch = {.spec = &starting->spec, .stdio = {-1, -1, -1}, .cgroup_dir = -1};
    starting->container->phase = PHASE_STARTING;
    if (starting->spec.dns)
        launch.dns_port = dns_port();
    if (join_siblings(starting, &launch) || prepare_root(starting, &launch) ||
        prepare_cgroup(starting, &launch) || prepare_sockets(starting) ||
        prepare_process(starting, &launch) ||
        launch_begin(&launch, starting->process, on_launched, starting, &starting->failure))
        give_up(starting);
}

static struct container *startable(const struct starting *starting)
{
    const char *id = starting->spec.id;
    struct container *container = container_find(id);
    if (!container)
        container = container_new(id);
    else if (container->phase != PHASE_ROOT) {
        reply_failure(starting->request, EEXIST, STAGE_OTHER, "container %s exists", id);
        return NULL;
    }
    if (!container)
        reply_failure(starting->request, ENOMEM, STAGE_OTHER, "no memory");
    return container;
}

void handle_container_start(struct request request, struct reader *payload)
{
    struct starting *starting = calloc(1, sizeof *starting);
    if (!starting) {
        reply_failure(request, ENOMEM, STAGE_OTHER, "no memory");
        return;
    }
    starting->request = request;
    if (!read_container(payload, &starting->spec)) {
        free(starting);
        return;
    }
    starting->container = startable(starting);
    if (starting->container)
        begin(starting);
    else
        forget(starting);
}
