/* Mount points that every container gets. dockerd makes them in a layer of their own between the
 * image's and the container's, so neither diff nor commit sees them. Here they are in the upper
 * directory, and are told by their place and by being empty. */
#include "archive_pack.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct stub {
    const char *path;
    bool directory;
};

static const struct stub STUBS[] = {
    {".dockerenv", false},
    {"dev", true},
    {"dev/console", false},
    {"dev/mqueue", true},
    {"dev/pts", true},
    {"dev/shm", true},
    {"etc", true},
    {"etc/hostname", false},
    {"etc/hosts", false},
    {"etc/mtab", false},
    {"etc/resolv.conf", false},
    {"proc", true},
    {"sys", true},
};

static const struct stub *find(const char *path)
{
    for (size_t i = 0; i < sizeof STUBS / sizeof STUBS[0]; i++)
        if (!strcmp(STUBS[i].path, path))
            return &STUBS[i];
    return NULL;
}

static bool only_stubs(int dirfd, const char *path, const char *name)
{
    char below[ARCHIVE_PATH];
    struct archive_names names;
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || archive_names_read(fd, &names)) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    bool only = true;
    for (size_t i = 0; only && i < names.count; i++) {
        const char *child = names.bytes + names.at[i];
        struct statx st;
        size_t used = strlen(path), length = strlen(child);
        only = used + length + 2 < sizeof below && !archive_statx(fd, child, &st);
        if (!only)
            break;
        memcpy(below, path, used);
        below[used] = '/';
        memcpy(below + used + 1, child, length + 1);
        only = archive_is_stub(fd, below, child, &st);
    }
    archive_names_free(&names);
    close(fd);
    return only;
}

bool archive_is_stub(int dirfd, const char *path, const char *name, const struct statx *st)
{
    const struct stub *stub = find(path);
    if (!stub)
        return false;
    if (!strcmp(path, "etc/mtab") && S_ISLNK(st->stx_mode)) {
        char target[16];
        ssize_t length = readlinkat(dirfd, name, target, sizeof target);
        return length == 12 && !memcmp(target, "/proc/mounts", 12);
    }
    if (!stub->directory)
        return S_ISREG(st->stx_mode) && !st->stx_size;
    return S_ISDIR(st->stx_mode) && only_stubs(dirfd, path, name);
}
