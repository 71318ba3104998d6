/* Paths in a container's root: cleaned by their text as Docker does, opened by the kernel so that
 * no link leads out (openat2(2), RESOLVE_IN_ROOT). */
#include "archive_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

#include "sys.h"

enum { LINKS_MOST = 255 }; /* Docker's own bound */

int archive_fail(char *detail, int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, ARCHIVE_DETAIL, format, arguments);
    va_end(arguments);
    for (char *at = detail; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?';
    return -error;
}

const char *archive_reason(int error)
{
    static char words[64];
    snprintf(words, sizeof words, "%s", strerror(error));
    if (words[0] >= 'A' && words[0] <= 'Z')
        words[0] = (char)(words[0] - 'A' + 'a');
    return words;
}

/* The next component of a path and its length; NULL at the end. */
static const char *component(const char **path, size_t *length)
{
    while (**path == '/')
        (*path)++;
    const char *start = *path;
    *length = strcspn(start, "/");
    *path += *length;
    return *length ? start : NULL;
}

static bool is_dot(const char *text, size_t length)
{
    return length == 1 && text[0] == '.';
}

static bool is_dots(const char *text, size_t length)
{
    return length == 2 && text[0] == '.' && text[1] == '.';
}

/* Appends a component to an absolute path; `used` is its length, 0 for the root. */
static int append(char *path, size_t *used, const char *text, size_t length)
{
    if (*used + 1 + length >= ARCHIVE_PATH)
        return -ENAMETOOLONG;
    path[(*used)++] = '/';
    memcpy(path + *used, text, length);
    *used += length;
    path[*used] = 0;
    return 0;
}

static void drop_last(char *path, size_t *used)
{
    while (*used && path[--*used] != '/')
        ;
    path[*used] = 0;
}

int archive_clean(const char *path, char out[ARCHIVE_PATH])
{
    size_t used = 0, length;
    const char *text;
    out[0] = 0;
    while ((text = component(&path, &length))) {
        if (is_dot(text, length))
            continue;
        if (is_dots(text, length))
            drop_last(out, &used);
        else if (append(out, &used, text, length))
            return -ENAMETOOLONG;
    }
    if (!used)
        strcpy(out, "/");
    return 0;
}

bool archive_escapes(const char *path)
{
    long depth = 0;
    size_t length;
    const char *text;
    bool absolute = *path == '/';
    while ((text = component(&path, &length))) {
        if (is_dot(text, length))
            continue;
        depth += is_dots(text, length) ? -1 : 1;
        if (depth < 0 && !absolute)
            return true;
        if (depth < 0)
            depth = 0;
    }
    return false;
}

int archive_open_in(int rootfd, const char *path, unsigned flags)
{
    while (*path == '/')
        path++;
    int fd = sys_openat2(rootfd, *path ? path : ".", flags | O_CLOEXEC, 0,
                         RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
    return fd < 0 ? -errno : fd;
}

int archive_open_beneath(int basefd, const char *path, unsigned flags, bool same_mount)
{
    uint64_t resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | (same_mount ? RESOLVE_NO_XDEV : 0);
    int fd = sys_openat2(basefd, path, flags | O_NOFOLLOW | O_CLOEXEC, 0, resolve);
    return fd < 0 ? -errno : fd;
}

int archive_statx(int dirfd, const char *name, struct statx *out)
{
    int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH);
    return statx(dirfd, name, flags, STATX_BASIC_STATS, out) ? -errno : 0;
}

/* Reads the link at a path without links before it: its length, or -errno where there is none. */
static ssize_t read_link(int rootfd, const char *path, char *target, size_t room)
{
    int fd = sys_openat2(rootfd, path + 1, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0,
                         RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
    if (fd < 0)
        return -errno;
    ssize_t length = readlinkat(fd, "", target, room);
    int error = errno;
    close(fd);
    return length < 0 ? -error : length;
}

/* Puts a link's target before what is left of the path. */
static int expand(char *left, const char *rest, const char *target, size_t length)
{
    size_t tail = strlen(rest);
    if (length + 1 + tail >= ARCHIVE_PATH)
        return -ENAMETOOLONG;
    memmove(left + length + 1, rest, tail + 1);
    memcpy(left, target, length);
    left[length] = '/';
    return 0;
}

int archive_follow(int rootfd, const char *path, char out[ARCHIVE_PATH])
{
    char left[ARCHIVE_PATH], target[ARCHIVE_PATH];
    size_t used = 0, length;
    if (strlen(path) >= sizeof left)
        return -ENAMETOOLONG;
    strcpy(left, path);
    const char *rest = left, *text;
    out[0] = 0;
    for (unsigned links = 0; (text = component(&rest, &length));) {
        if (is_dot(text, length))
            continue;
        if (is_dots(text, length)) {
            drop_last(out, &used);
            continue;
        }
        if (append(out, &used, text, length))
            return -ENAMETOOLONG;
        ssize_t found = read_link(rootfd, out, target, sizeof target);
        if (found < 0)
            continue;
        if (++links > LINKS_MOST)
            return -ELOOP;
        drop_last(out, &used);
        if (found && target[0] == '/')
            out[used = 0] = 0;
        if (expand(left, rest, target, (size_t)found))
            return -ENAMETOOLONG;
        rest = left;
    }
    if (!used)
        strcpy(out, "/");
    return 0;
}

int archive_place(const char *path, struct archive_place *place, char *detail)
{
    if (archive_clean(path, place->path))
        return archive_fail(detail, ENAMETOOLONG, "the path is too long");
    size_t end = strlen(path);
    bool slash = end && path[end - 1] == '/';
    while (end && path[end - 1] == '/')
        end--;
    place->dot = end && path[end - 1] == '.' && (end == 1 || path[end - 2] == '/');
    bool root = !place->path[1];
    place->through = place->dot || slash || root;
    place->base = place->dot ? "." : root ? "/" : strrchr(place->path, '/') + 1;
    return 0;
}

/* Where the kernel's files are mounted Docker finds the empty folder of the image. */
static bool mounted_over(int rootfd, const struct archive_place *place, int fd)
{
    char above[ARCHIVE_PATH];
    struct statx found;
    if (archive_statx(fd, "", &found) || !(found.stx_attributes & STATX_ATTR_MOUNT_ROOT) ||
        !S_ISDIR(found.stx_mode))
        return false;
    strcpy(above, place->path);
    *strrchr(above, '/') = 0;
    int parent = archive_open_in(rootfd, above, O_PATH | O_DIRECTORY);
    bool stored = parent >= 0 && !archive_is_pseudo(parent);
    if (parent >= 0)
        close(parent);
    return stored;
}

int archive_place_open(int rootfd, const struct archive_place *place, char *detail)
{
    unsigned flags = O_PATH | (place->through ? O_DIRECTORY : O_NOFOLLOW);
    int fd = archive_open_in(rootfd, place->path, flags);
    if (fd < 0)
        return archive_fail(detail, -fd, "lstat %s: %s", place->path, archive_reason(-fd));
    if (archive_is_pseudo(fd) && !mounted_over(rootfd, place, fd)) {
        close(fd);
        return archive_fail(detail, ENOENT, "lstat %s: it is not stored anywhere", place->path);
    }
    return fd;
}

static uint32_t kind_of(int fd)
{
    struct statfs found;
    return fstatfs(fd, &found) ? 0 : (uint32_t)found.f_type;
}

bool archive_is_pseudo(int fd)
{
    switch (kind_of(fd)) {
    case 0x9fa0:     /* proc */
    case 0x62656572: /* sysfs */
    case 0x27e0eb:   /* cgroup */
    case 0x63677270: /* cgroup2 */
    case 0x1cd1:     /* devpts */
    case 0x19800202: /* mqueue */
    case 0x64626720: /* debugfs */
    case 0x74726163: /* tracefs */
    case 0x73636673: /* securityfs */
    case 0xcafe4a11: /* bpf */
    case 0x6e736673: /* nsfs */
        return true;
    default:
        return false;
    }
}

bool archive_is_storage(int fd)
{
    switch (kind_of(fd)) {
    case 0x65735546: /* FUSE: virtio-fs, so volumes and binds */
    case 0x794c7630: /* overlay */
    case 0xef53:     /* ext4: block volumes */
    case 0xe0f5e1e2: /* EROFS */
    case 0x58465342: /* XFS */
    case 0x9123683e: /* btrfs */
        return true;
    default:
        return false;
    }
}
