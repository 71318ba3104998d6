/* What a child does for an archive operation (archive.h), and how it tells the agent. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "archive.h"
#include "reap.h"
#include "transfer.h"

enum { MAX_CHANGES = 100000, MEMORY = 512 << 20, FILES = 1024 };

static void send_all(int fd, const void *data, size_t length)
{
    const uint8_t *at = data;
    while (length) {
        ssize_t sent = write(fd, at, length);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            _exit(1);
        at += sent;
        length -= (size_t)sent;
    }
}

/* Sends a record: the message, or a failure (error is negative) with its line. */
static void tell(int results, int error, const struct writer *message, const char *detail)
{
    size_t length = error ? strlen(detail) : message ? message->length : 0;
    struct transfer_record record = {(uint32_t)length, -error};
    send_all(results, &record, sizeof record);
    send_all(results, error ? (const void *)detail : message ? message->data : NULL, length);
}

static int stat_record(const struct transfer_job *job, int results, char *detail)
{
    static struct archive_stat found;
    struct writer message = {0};
    int error = archive_stat(job->root, job->path, &found, detail);
    if (!error) {
        write_text(&message, F_PATH_STAT_NAME, found.name);
        write_number(&message, F_PATH_STAT_SIZE, (int64_t)found.size);
        write_number(&message, F_PATH_STAT_MODE, found.mode);
        write_number(&message, F_PATH_STAT_MTIME_NS, found.mtime_ns);
        write_text(&message, F_PATH_STAT_LINK_TARGET, found.link_target);
        error = message.failed ? -ENOMEM : 0;
    }
    tell(results, error, &message, detail);
    return error;
}

static void owner_record(const struct transfer_job *job, int results, char *detail)
{
    struct writer message = {0};
    uint32_t id = 0;
    int error = archive_owner(job->root, job->path, job->group, &id, detail);
    if (!error)
        write_number(&message, F_OWNER_ID, id);
    tell(results, message.failed ? -ENOMEM : error, &message, detail);
}

struct change_list {
    struct writer message;
    size_t count;
};

/* Ends the walk when there are too many, or too many bytes for one answer. */
static int add_change(void *context, const char *path, enum archive_change_kind kind)
{
    struct change_list *list = context;
    size_t field = strlen(path) + 64;
    if (list->count++ >= MAX_CHANGES || list->message.length + field > HYPER_MAX_MESSAGE)
        return 1;
    size_t opened = write_open(&list->message, F_CHANGES_CHANGES);
    write_text(&list->message, F_CHANGE_PATH, path);
    write_number(&list->message, F_CHANGE_KIND, kind);
    write_close(&list->message, opened);
    return list->message.failed;
}

static void changes_record(const struct transfer_job *job, int results, char *detail)
{
    struct change_list list = {0};
    int error =
        archive_changes(job->root, job->layers, job->layer_count, add_change, &list, detail);
    if (!error && list.message.failed)
        error = -ENOMEM;
    tell(results, error, &list.message, detail);
}

/* Files have times of the clock's last tick: whatever is written after this difference is told from
 * what is in it only once the tick is over that it was asked for in. */
static void wait_for_tick(int64_t now)
{
    struct timespec pause = {.tv_nsec = 1000000}, tick;
    for (int tries = 0; tries < 1000; tries++) {
        clock_gettime(CLOCK_REALTIME_COARSE, &tick);
        if (tick.tv_sec * 1000000000 + tick.tv_nsec > now)
            return;
        nanosleep(&pause, NULL);
    }
}

static int diff(const struct transfer_job *job, int data, char *detail)
{
    wait_for_tick(job->now);
    return archive_diff(job->root, job->layers, job->layer_count, job->since, data, detail);
}

/* Writes a tar; the second record says how it ended. */
static void send_tar(const struct transfer_job *job, int results, int data, char *detail)
{
    int error;
    if (job->op == OP_ARCHIVE_GET)
        error = archive_get(job->root, job->path, data, detail);
    else if (job->diff)
        error = diff(job, data, detail);
    else
        error = archive_export(job->root, data, detail);
    tell(results, error, NULL, detail);
}

/* A runaway archive ends the child: it is small, the first to be killed for memory, and holds no
 * descriptor of the agent. */
static void confine(const struct transfer_job *job, int results, int data)
{
    int keep[TRANSFER_LAYERS + 3] = {results, job->root};
    size_t count = 2;
    if (data >= 0)
        keep[count++] = data;
    for (size_t i = 0; i < job->layer_count; i++)
        keep[count++] = job->layers[i];
    child_signals();
    child_close_all(keep, count);
    struct rlimit files = {FILES, FILES}, core = {0, 0};
#ifndef __SANITIZE_ADDRESS__ /* which maps terabytes that it doesn't use */
    struct rlimit memory = {MEMORY, MEMORY};
    setrlimit(RLIMIT_AS, &memory);
#endif
    setrlimit(RLIMIT_NOFILE, &files);
    setrlimit(RLIMIT_CORE, &core);
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (score >= 0 && write(score, "1000", 4) == 4)
        close(score);
}

_Noreturn void transfer_child(const struct transfer_job *job, int results, int data)
{
    static char detail[ARCHIVE_DETAIL];
    confine(job, results, data);
    switch ((int)job->op) {
    case OP_ARCHIVE_STAT:
        stat_record(job, results, detail);
        break;
    case OP_ARCHIVE_PUT:
        tell(results, archive_put(job->root, job->path, data, job->flags, detail), NULL, detail);
        break;
    case OP_OWNER:
        owner_record(job, results, detail);
        break;
    case OP_CHANGES:
        changes_record(job, results, detail);
        break;
    case OP_ARCHIVE_GET:
        if (!stat_record(job, results, detail))
            send_tar(job, results, data, detail);
        break;
    default:
        send_tar(job, results, data, detail);
    }
    _exit(0);
}
