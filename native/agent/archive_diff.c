/* What an overlay's upper directory changes, as a layer (OCI image specification, layer.md): what
 * archive_changes.c finds, with an empty file .wh.NAME for what is gone. dockerd's layers are made
 * of the same comparison, so a command that leaves everything as it was makes none. */
#include "archive_pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct diff {
    struct archive_pack *pack;
    int upperfd;
    int64_t since;
    int error;
    char last[ARCHIVE_PATH]; /* what was written last */
};

static int whiteout(struct archive_pack *pack, const char *path, const char *base)
{
    char name[ARCHIVE_PATH + 8];
    snprintf(name, sizeof name, "%.*s.wh.%s", (int)(base - path), path, base);
    return archive_pack_empty(pack, name, 0600);
}

static bool is_old(const struct diff *diff, const struct statx *st)
{
    return st->stx_ctime.tv_sec * 1000000000 + st->stx_ctime.tv_nsec <= diff->since;
}

/* The directory that a name of a path is in, or -1: it is gone, or replaced. */
static int open_above(const struct diff *diff, const char *path, const char *base)
{
    char above[ARCHIVE_PATH];
    snprintf(above, sizeof above, "%.*s", (int)(base - path), path);
    return archive_open_beneath(diff->upperfd, *above ? above : ".", O_RDONLY | O_DIRECTORY, true);
}

/* Writes the directory of the path's first `length` bytes, unless it was written for what came just
 * before: paths are sorted, so all that is in one directory comes together. */
static int parent(struct diff *diff, const char *path, size_t length)
{
    char name[ARCHIVE_PATH];
    struct statx st;
    if (!strncmp(diff->last, path, length) && (!diff->last[length] || diff->last[length] == '/'))
        return 0;
    snprintf(name, sizeof name, "%.*s", (int)length, path);
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    int fd = open_above(diff, name, base), error = 0;
    if (fd >= 0 && !archive_statx(fd, base, &st))
        error = archive_pack_file(diff->pack, fd, base, name, &st);
    if (fd >= 0)
        close(fd);
    return error;
}

/* A layer has the directories above what is in it: without them they would be made anew. */
static int parents(struct diff *diff, const char *path)
{
    int error = 0;
    for (const char *slash = path; !error && (slash = strchr(slash, '/')); slash++)
        error = parent(diff, path, (size_t)(slash - path));
    snprintf(diff->last, sizeof diff->last, "%s", path);
    return error;
}

static int one(struct diff *diff, const char *path, const char *base, bool deleted)
{
    struct statx st;
    int fd = open_above(diff, path, base);
    if (fd < 0)
        return 0;
    bool there = !archive_statx(fd, base, &st), wanted = there ? !is_old(diff, &st) : deleted;
    int error = wanted ? parents(diff, path) : 0;
    if (!error && wanted)
        error = deleted ? whiteout(diff->pack, path, base)
                        : archive_pack_file(diff->pack, fd, base, path, &st);
    close(fd);
    return error;
}

static int diff_change(void *context, const char *path, enum archive_change_kind kind)
{
    struct diff *diff = context;
    const char *slash = strrchr(path, '/');
    path++; /* "/etc/x" is "etc/x" in a layer */
    diff->error = one(diff, path, slash + 1, kind == ARCHIVE_DELETED);
    return diff->error;
}

int archive_diff(int upperfd, const int *lowers, size_t lower_count, int64_t since, int outfd,
                 char detail[ARCHIVE_DETAIL])
{
    detail[0] = 0;
    struct diff diff = {.pack = archive_pack_new(outfd, detail), .upperfd = upperfd, .since = since};
    if (!diff.pack)
        return -ENOMEM;
    diff.pack->nanoseconds = true;
    int error = archive_changes(upperfd, lowers, lower_count, diff_change, &diff, detail);
    return archive_pack_end(diff.pack, error ? error : diff.error);
}
