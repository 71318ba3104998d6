/* EXEC: a further process in a running container. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "launch.h"
#include "state.h"

struct executing {
    struct request request;
    struct container_spec spec;
    struct process *process;
};

static void finish(struct executing *executing, const struct failure *failure)
{
    if (failure) {
        if (executing->process)
            process_discard(executing->process);
        reply_failure(executing->request, failure->error, failure->stage, "%s", failure->detail);
    }
    arena_free(&executing->spec.arena);
    free(executing);
}

static void on_launched(void *context, const struct launched *launched,
                        const struct failure *failure)
{
    struct executing *executing = context;
    if (!failure) {
        struct writer started = {0};
        write_number(&started, F_STARTED_PID, launched->pid);
        write_number(&started, F_STARTED_STARTED_NS, launched->started_ns);
        reply(executing->request, &started);
        process_started(executing->process, launched->pid, launched->started_ns);
        close(launched->pidfd);
    }
    finish(executing, failure);
}

static int prepare(struct executing *executing, struct launch *launch, struct failure *failure)
{
    const struct process_spec *process = &executing->spec.process;
    struct process_names names = {.handle = process->handle,
                                  .stdin_id = process->stdin_id,
                                  .stdout_id = process->stdout_id,
                                  .stderr_id = process->stderr_id,
                                  .tty = process->tty};
    snprintf(names.container, sizeof names.container, "%s", executing->spec.id);
    executing->process = process_new(&names);
    if (!executing->process)
        return fail_errno(failure, STAGE_OTHER, errno, "taking handle %u", names.handle);
    int error = process->tty ? 0 : process_pipes(executing->process, launch->stdio);
    return error ? fail_errno(failure, STAGE_OTHER, -error, "making pipes") : 0;
}

static void begin(struct executing *executing, const struct container *container)
{
    struct failure failure = {0};
    struct launch launch = {
        .spec = &executing->spec,
        .exec = true,
        .stdio = {-1, -1, -1},
        .cgroup_dir = container->cgroup.dir,
        .joined = {{container->namespaces, container->pidfd}},
        .joined_count = 1,
    };
    if (prepare(executing, &launch, &failure) ||
        launch_begin(&launch, executing->process, on_launched, executing, &failure))
        finish(executing, &failure);
}

void handle_exec(struct request request, struct reader *payload)
{
    struct executing *executing = calloc(1, sizeof *executing);
    if (!executing) {
        reply_failure(request, ENOMEM, STAGE_OTHER, "no memory");
        return;
    }
    executing->request = request;
    if (!read_exec(payload, &executing->spec)) {
        free(executing);
        return;
    }
    struct container *container = container_for(request, executing->spec.id, true);
    if (container && !container->frozen) {
        begin(executing, container);
        return;
    }
    /* A child in a frozen cgroup would freeze before it could say anything. */
    if (container)
        reply_failure(request, EBUSY, STAGE_OTHER, "container %s is paused", executing->spec.id);
    arena_free(&executing->spec.arena);
    free(executing);
}
