/* What Docker's HEAD of an archive path tells: the file itself and where a link ends. */
#include "archive_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* 64 bits of nanoseconds end in the year 2262; file systems go further. */
static int64_t nanoseconds(int64_t seconds, uint32_t part)
{
    int64_t most = INT64_MAX / 1000000000 - 1;
    if (seconds > most || seconds < -most)
        return seconds < 0 ? -most * 1000000000 : most * 1000000000;
    return seconds * 1000000000 + part;
}

static int fill(int rootfd, int fd, const struct archive_place *place, struct archive_stat *out,
                char *detail)
{
    struct statx st;
    int error = archive_statx(fd, "", &st);
    if (error)
        return archive_fail(detail, -error, "lstat %s: %s", place->path, archive_reason(-error));
    snprintf(out->name, sizeof out->name, "%s", place->base);
    out->size = st.stx_size;
    out->mode = st.stx_mode;
    out->mtime_ns = nanoseconds(st.stx_mtime.tv_sec, st.stx_mtime.tv_nsec);
    if (!S_ISLNK(st.stx_mode))
        return 0;
    error = archive_follow(rootfd, place->path, out->link_target);
    if (error)
        return archive_fail(detail, -error, "too many links in %s", place->path);
    return 0;
}

int archive_stat(int rootfd, const char *path, struct archive_stat *out,
                 char detail[ARCHIVE_DETAIL])
{
    struct archive_place place;
    *out = (struct archive_stat){0};
    detail[0] = 0;
    int fd = archive_place(path, &place, detail);
    if (!fd)
        fd = archive_place_open(rootfd, &place, detail);
    if (fd < 0)
        return fd;
    int error = fill(rootfd, fd, &place, out, detail);
    close(fd);
    return error;
}
