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

static int one(struct diff *diff, const char *path, const char *base, bool deleted)
{
    char above[ARCHIVE_PATH];
    struct statx st;
    snprintf(above, sizeof above, "%.*s", (int)(base - path), path);
    int fd =
        archive_open_beneath(diff->upperfd, *above ? above : ".", O_RDONLY | O_DIRECTORY, true);
    if (fd < 0)
        return 0; /* it is gone, or replaced */
    int error = 0;
    bool there = !archive_statx(fd, base, &st);
    if (there && is_old(diff, &st))
        error = 0;
    else if (deleted)
        error = whiteout(diff->pack, path, base);
    else if (there)
        error = archive_pack_file(diff->pack, fd, base, path, &st);
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
    int error = archive_changes(upperfd, lowers, lower_count, diff_change, &diff, detail);
    return archive_pack_end(diff.pack, error ? error : diff.error);
}
