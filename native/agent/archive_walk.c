/* Directories: their names sorted, a walk over a tree, and the removal of one.
 *
 * The tree may change below the walk, and whoever changes it is hostile: names are looked up one at
 * a time in descriptors, directories opened beneath the start with no link allowed. */
#include "archive_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    KEPT_OPEN = 64,   /* levels whose directory stays open while what is below is walked */
    LIST = 32 * 1024, /* read from a directory at once */
    NAMES_MOST = 128 * 1024 * 1024, /* bytes of names in memory */
};

struct linux_dirent64 {
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
    char d_name[];
};

static int names_add(struct archive_names *names, const char *name)
{
    size_t length = strlen(name) + 1;
    if (names->used + length > names->room) {
        size_t room = names->room ? names->room * 2 : 4096;
        if (room > NAMES_MOST)
            return -ENOMEM;
        char *grown = realloc(names->bytes, room);
        if (!grown)
            return -ENOMEM;
        names->bytes = grown;
        names->room = room;
    }
    if ((names->count & (names->count + 1)) == 0) { /* 0, 1, 3, 7, ...: the array is full */
        uint32_t *grown = realloc(names->at, (names->count * 2 + 1) * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        names->at = grown;
    }
    memcpy(names->bytes + names->used, name, length);
    names->at[names->count++] = (uint32_t)names->used;
    names->used += length;
    return 0;
}

static int by_name(const void *left, const void *right, void *bytes)
{
    const char *text = bytes;
    return strcmp(text + *(const uint32_t *)left, text + *(const uint32_t *)right);
}

static int names_collect(int dirfd, struct archive_names *names, char *buffer)
{
    for (;;) {
        long got = syscall(SYS_getdents64, dirfd, buffer, LIST);
        if (got <= 0)
            return got ? -errno : 0;
        for (long at = 0; at < got;) {
            const struct linux_dirent64 *entry = (const void *)(buffer + at);
            at += entry->d_reclen;
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
                continue;
            int error = names_add(names, entry->d_name);
            if (error)
                return error;
        }
    }
}

int archive_names_read(int dirfd, struct archive_names *names)
{
    *names = (struct archive_names){0};
    char *buffer = malloc(LIST);
    if (!buffer)
        return -ENOMEM;
    int error = names_collect(dirfd, names, buffer);
    free(buffer);
    if (error) {
        archive_names_free(names);
        return error;
    }
    if (names->count > 1)
        qsort_r(names->at, names->count, sizeof *names->at, by_name, names->bytes);
    return 0;
}

void archive_names_free(struct archive_names *names)
{
    free(names->bytes);
    free(names->at);
    *names = (struct archive_names){0};
}

struct walk {
    int basefd;
    bool cross;
    archive_walk_fn *fn;
    void *context;
    char *detail;
    unsigned depth;
    size_t length; /* of path */
    size_t held;   /* bytes of names in memory */
    char path[ARCHIVE_PATH];
};

static int walk_list(struct walk *walk, int fd);

static int walk_fail(struct walk *walk, int error, const char *what)
{
    return archive_fail(walk->detail, -error, "%s %s: %s", what, walk->path,
                        archive_reason(-error));
}

/* Opens the directory at the walk's path, or says why it is to be passed over (0). */
static int walk_open(struct walk *walk, bool mounted, int *fd)
{
    const char *path = walk->length ? walk->path : ".";
    *fd = archive_open_beneath(walk->basefd, path, O_RDONLY | O_DIRECTORY, !walk->cross);
    if (*fd >= 0 && mounted && !archive_is_storage(*fd)) {
        close(*fd);
        *fd = -EXDEV;
    }
    /* Gone, replaced, or the start of another file system: nothing to walk. */
    if (*fd == -ENOENT || *fd == -ENOTDIR || *fd == -ELOOP || *fd == -EXDEV)
        return 0;
    return *fd < 0 ? walk_fail(walk, *fd, "open") : 1;
}

static int walk_directory(struct walk *walk, bool mounted)
{
    int fd, opened = walk_open(walk, mounted, &fd);
    if (opened <= 0)
        return opened;
    return walk_list(walk, fd);
}

/* Opens the directory of the path's first `length` bytes again; -1 where it is gone. */
static int walk_reopen(struct walk *walk, size_t length, int *fd)
{
    char cut = walk->path[length];
    size_t whole = walk->length;
    walk->path[length] = 0;
    walk->length = length;
    int opened = walk_open(walk, false, fd);
    walk->path[length] = cut;
    walk->length = whole;
    if (opened <= 0)
        *fd = -1;
    return opened < 0 ? opened : 0;
}

/* Walks the directory at the walk's path, whose parent is *fd and `parent` bytes of the path. */
static int walk_below(struct walk *walk, int *fd, size_t parent, struct archive_entry *entry)
{
    bool reopen = walk->depth >= KEPT_OPEN;
    if (reopen) {
        close(*fd);
        *fd = -1;
    }
    walk->depth++;
    int error = walk_directory(walk, entry->mounted);
    walk->depth--;
    if (!error && reopen)
        error = walk_reopen(walk, parent, fd);
    entry->dirfd = *fd;
    return error || *fd < 0 ? error : walk->fn(walk->context, entry, WALK_AFTER);
}

/* Calls for one name and, if it is a directory, for all below it. */
static int walk_name(struct walk *walk, int *fd, const char *name)
{
    size_t before = walk->length, length = strlen(name);
    struct statx st;
    if (before + 1 + length >= sizeof walk->path)
        return walk_fail(walk, -ENAMETOOLONG, "walk");
    if (archive_statx(*fd, name, &st))
        return 0; /* it is gone */
    if (before)
        walk->path[walk->length++] = '/';
    memcpy(walk->path + walk->length, name, length + 1);
    walk->length += length;
    struct archive_entry entry = {
        .dirfd = *fd,
        .name = walk->path + walk->length - length,
        .path = walk->path,
        .st = &st,
        .mounted = st.stx_attributes & STATX_ATTR_MOUNT_ROOT,
    };
    int result = walk->fn(walk->context, &entry, WALK_BEFORE);
    if (result == WALK_ON && S_ISDIR(st.stx_mode))
        result = walk_below(walk, fd, before, &entry);
    walk->length = before;
    walk->path[before] = 0;
    return result < 0 ? result : 0;
}

/* Walks an open directory and closes it. */
static int walk_list(struct walk *walk, int fd)
{
    struct archive_names names;
    int error = archive_names_read(fd, &names);
    size_t held = names.room;
    walk->held += held;
    if (!error && walk->held > NAMES_MOST)
        error = -ENOMEM;
    if (error)
        error = walk_fail(walk, error, "readdir");
    for (size_t i = 0; !error && fd >= 0 && i < names.count; i++)
        error = walk_name(walk, &fd, names.bytes + names.at[i]);
    walk->held -= held;
    archive_names_free(&names);
    if (fd >= 0)
        close(fd);
    return error;
}

int archive_walk(int basefd, bool cross_mounts, archive_walk_fn *fn, void *context, char *detail)
{
    struct walk walk = {
        .basefd = basefd, .cross = cross_mounts, .fn = fn, .context = context, .detail = detail};
    return walk_directory(&walk, false);
}

static int remove_entry(void *context, const struct archive_entry *entry,
                        enum archive_walk_when when)
{
    bool directory = S_ISDIR(entry->st->stx_mode);
    if (when == WALK_BEFORE && directory)
        return WALK_ON;
    if (!unlinkat(entry->dirfd, entry->name, directory ? AT_REMOVEDIR : 0) || errno == ENOENT)
        return WALK_ON;
    return archive_fail(context, errno, "unlink %s: %s", entry->path, archive_reason(errno));
}

int archive_remove(int dirfd, const char *name, char *detail)
{
    if (!unlinkat(dirfd, name, 0) || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return archive_fail(detail, errno, "unlink %s: %s", name, archive_reason(errno));
    int fd = archive_open_beneath(dirfd, name, O_RDONLY | O_DIRECTORY, true);
    if (fd == -EXDEV)
        fd = -EBUSY;
    if (fd < 0)
        return archive_fail(detail, -fd, "unlink %s: %s", name, archive_reason(-fd));
    int error = archive_walk(fd, false, remove_entry, detail, detail);
    close(fd);
    if (!error && unlinkat(dirfd, name, AT_REMOVEDIR) && errno != ENOENT)
        error = archive_fail(detail, errno, "unlink %s: %s", name, archive_reason(errno));
    return error;
}
