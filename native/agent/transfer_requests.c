/* Requests about a container's files: ARCHIVE_STAT, ARCHIVE_GET, ARCHIVE_PUT, CHANGES, EXPORT. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "archive.h"
#include "container.h"
#include "transfer.h"

enum { ID_MOST = 64 };

struct wanted {
    char *container, *path;
    int64_t stream;
    bool no_overwrite, copy_ids, diff, more, group;
};

static void wanted_free(struct wanted *wanted)
{
    free(wanted->container);
    free(wanted->path);
}

/* Takes a text field, which must not come twice. */
static void take_text(struct reader *payload, const struct field *field, size_t most, char **into)
{
    payload->bad |= *into != NULL;
    if (!payload->bad)
        *into = field_text(payload, field, most);
}

static void read_archive(struct reader *payload, struct wanted *wanted)
{
    struct field field;
    while (reader_next(payload, &field)) {
        if (field.tag == F_ARCHIVE_REQUEST_CONTAINER)
            take_text(payload, &field, ID_MOST, &wanted->container);
        else if (field.tag == F_ARCHIVE_REQUEST_PATH)
            take_text(payload, &field, PATH_MAX, &wanted->path);
        else if (field.tag == F_ARCHIVE_REQUEST_STREAM)
            wanted->stream = field_number(payload, &field);
        else if (field.tag == F_ARCHIVE_REQUEST_NO_OVERWRITE_DIR_NON_DIR)
            wanted->no_overwrite = field_flag(payload, &field);
        else if (field.tag == F_ARCHIVE_REQUEST_COPY_IDS)
            wanted->copy_ids = field_flag(payload, &field);
        else
            payload->bad = true;
    }
}

static void read_export(struct reader *payload, struct wanted *wanted)
{
    struct field field;
    while (reader_next(payload, &field)) {
        if (field.tag == F_EXPORT_REQUEST_CONTAINER)
            take_text(payload, &field, ID_MOST, &wanted->container);
        else if (field.tag == F_EXPORT_REQUEST_STREAM)
            wanted->stream = field_number(payload, &field);
        else if (field.tag == F_EXPORT_REQUEST_DIFF)
            wanted->diff = field_flag(payload, &field);
        else if (field.tag == F_EXPORT_REQUEST_MORE)
            wanted->more = field_flag(payload, &field);
        else
            payload->bad = true;
    }
}

static void read_owner(struct reader *payload, struct wanted *wanted)
{
    struct field field;
    while (reader_next(payload, &field)) {
        if (field.tag == F_OWNER_REQUEST_CONTAINER)
            take_text(payload, &field, ID_MOST, &wanted->container);
        else if (field.tag == F_OWNER_REQUEST_NAME)
            take_text(payload, &field, PATH_MAX, &wanted->path);
        else if (field.tag == F_OWNER_REQUEST_GROUP)
            wanted->group = field_flag(payload, &field);
        else
            payload->bad = true;
    }
}

static void read_reference(struct reader *payload, struct wanted *wanted)
{
    struct field field;
    while (reader_next(payload, &field)) {
        if (field.tag == F_CONTAINER_REF_ID)
            take_text(payload, &field, ID_MOST, &wanted->container);
        else
            payload->bad = true;
    }
}

/* Opens what the child will work on; returns 0 or -errno. */
static int open_root(const struct container *container, struct transfer_job *job)
{
    bool upper = job->op == OP_CHANGES || job->diff;
    job->root = upper ? container_upper_fd(container) : container_root_fd(container);
    if (job->root < 0)
        return job->root;
    if (!upper)
        return 0;
    int count = container_layer_fds(container, job->layers, TRANSFER_LAYERS);
    if (count < 0) {
        close(job->root);
        return count;
    }
    job->layer_count = (size_t)count;
    return 0;
}

/* The last difference that was taken: of whom, and when by the guest's clock, in ns. */
static struct {
    char id[ID_MOST + 1];
    int64_t ns;
} last_diff;

static void take_time(struct transfer_job *job, const struct wanted *wanted)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    job->now = now.tv_sec * 1000000000 + now.tv_nsec;
    if (wanted->more && !strcmp(last_diff.id, wanted->container))
        job->since = last_diff.ns;
    snprintf(last_diff.id, sizeof last_diff.id, "%s", wanted->container);
    last_diff.ns = job->now;
}

static void close_root(const struct transfer_job *job)
{
    close(job->root);
    for (size_t i = 0; i < job->layer_count; i++)
        close(job->layers[i]);
}

static void run(struct request request, const struct wanted *wanted, bool streams)
{
    struct transfer_job job = {
        .op = (enum hyper_op)request.op,
        .path = wanted->path ? wanted->path : "",
        .flags = (wanted->no_overwrite ? ARCHIVE_NO_OVERWRITE_DIR_NON_DIR : 0u) |
                 (wanted->copy_ids ? ARCHIVE_COPY_IDS : 0u),
        .diff = wanted->diff,
        .group = wanted->group,
    };
    const struct container *container =
        wanted->container ? container_find(wanted->container) : NULL;
    if (!container) {
        reply_failure(request, ESRCH, STAGE_OTHER, "no such container");
        return;
    }
    if (streams && (wanted->stream <= 0 || wanted->stream > UINT32_MAX)) {
        reply_failure(request, EINVAL, STAGE_OTHER, "a stream is needed");
        return;
    }
    if (wanted->diff)
        take_time(&job, wanted);
    int error = open_root(container, &job);
    if (error) {
        reply_failure(request, -error, STAGE_ROOT, "the container's root can't be opened: %s",
                      strerror(-error));
        return;
    }
    transfer_begin(request, &job, streams ? (uint32_t)wanted->stream : 0);
    close_root(&job);
}

static void handle(struct request request, struct reader *payload,
                   void (*read)(struct reader *, struct wanted *), bool streams)
{
    struct wanted wanted = {0};
    read(payload, &wanted);
    if (!payload->bad)
        run(request, &wanted, streams);
    wanted_free(&wanted);
}

void handle_archive_stat(struct request request, struct reader *payload)
{
    handle(request, payload, read_archive, false);
}

void handle_archive_get(struct request request, struct reader *payload)
{
    handle(request, payload, read_archive, true);
}

void handle_archive_put(struct request request, struct reader *payload)
{
    handle(request, payload, read_archive, true);
}

void handle_export(struct request request, struct reader *payload)
{
    handle(request, payload, read_export, true);
}

void handle_changes(struct request request, struct reader *payload)
{
    handle(request, payload, read_reference, false);
}

void handle_owner(struct request request, struct reader *payload)
{
    handle(request, payload, read_owner, false);
}
