/* A tar into a directory of the root: Docker's cp into a container.
 *
 * Each entry's parent is looked up from the root, links within it followed as a process of the
 * container would; the last component is never followed. What exists is replaced, except that a
 * directory takes in a directory. Nothing is done by name that could be a link at that moment:
 * owner, mode and times are set through descriptors. */
#include "archive_tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
    LATER_MOST = 32 * 1024 * 1024
}; /* bytes of directories' names whose times are set at the end */

struct later {
    struct later *next;
    int64_t mtime;
    uint32_t mtime_ns;
    char path[];
};

struct put {
    int rootfd;
    unsigned flags;
    char *detail;
    const char *dest; /* cleaned, absolute */
    struct tar_reader *reader;
    struct later *later; /* the last first: those below before those above */
    size_t later_bytes;
    int parent; /* descriptor of the directory `parent_path`, or -1 */
    char parent_path[ARCHIVE_PATH];
    char path[ARCHIVE_PATH]; /* of the entry, absolute in the root */
};

/* An error about an entry. What it misses is not the path that was asked for: no ENOENT. */
static int put_fail(struct put *put, int error, const char *what)
{
    return archive_fail(put->detail, error == ENOENT ? EINVAL : error, "%s %s: %s", what, put->path,
                        archive_reason(error));
}

static void forget_parent(struct put *put)
{
    if (put->parent >= 0)
        close(put->parent);
    put->parent = -1;
}

/* dest + "/" + a cleaned absolute path ("/" for dest itself). */
static int join(struct put *put, const char *cleaned, char out[ARCHIVE_PATH])
{
    const char *dest = put->dest[1] ? put->dest : "";
    if (snprintf(out, ARCHIVE_PATH, "%s%s", dest, cleaned) < ARCHIVE_PATH)
        return 0;
    return archive_fail(put->detail, ENAMETOOLONG, "%s: file name too long", cleaned);
}

/* Makes the directories of a path that are missing, from its start on. */
static int make_parents(struct put *put, char *path)
{
    int at = archive_open_in(put->rootfd, "/", O_PATH | O_DIRECTORY);
    for (char *name = path; at >= 0 && *name == '/';) {
        char *end = name + 1 + strcspn(name + 1, "/");
        char cut = *end;
        *end = 0;
        int next = archive_open_in(put->rootfd, path, O_PATH | O_DIRECTORY);
        if (next == -ENOENT && mkdirat(at, name + 1, 0755) && errno != EEXIST)
            next = -errno;
        else if (next == -ENOENT)
            next = archive_open_in(put->rootfd, path, O_PATH | O_DIRECTORY);
        close(at);
        at = next;
        *end = cut;
        name = end;
    }
    return at;
}

/* Opens the directory that holds put->path and points at the last component. */
static int open_parent(struct put *put, const char **base)
{
    char path[ARCHIVE_PATH];
    strcpy(path, put->path);
    char *slash = strrchr(path, '/');
    *base = put->path + (slash - path) + 1;
    *slash = 0;
    if (put->parent >= 0 && !strcmp(path, put->parent_path))
        return put->parent;
    forget_parent(put);
    int fd = archive_open_in(put->rootfd, path, O_PATH | O_DIRECTORY);
    if (fd == -ENOENT)
        fd = make_parents(put, path);
    if (fd < 0)
        return put_fail(put, -fd, "mkdir");
    strcpy(put->parent_path, path);
    return put->parent = fd;
}

/* Makes place for the entry: 1 if a directory stays, 0 if nothing is there any more, or -errno. */
static int make_place(struct put *put, int parent, const char *base)
{
    struct statx st;
    if (archive_statx(parent, base, &st))
        return 0;
    bool old = S_ISDIR(st.stx_mode), new = put->reader->entry.type == TAR_DIRECTORY;
    if (old && new)
        return 1;
    if (put->flags & ARCHIVE_NO_OVERWRITE_DIR_NON_DIR && (old || new))
        return archive_fail(put->detail, EEXIST, "cannot overwrite %s \"%s\" with %s \"%s\"",
                            old ? "directory" : "non-directory", put->path,
                            new ? "directory" : "non-directory", put->dest);
    return archive_remove(parent, base, put->detail);
}

/* Attributes that a tar may set. Overlay's own and the security modules' it may not; a file system
 * that has none of these is no error, as for Docker. */
static bool xattr_wanted(const char *name)
{
    return !strcmp(name, "security.capability") || !strncmp(name, "user.", 5);
}

static int set_xattrs(struct put *put, int fd)
{
    size_t at = 0, length;
    const char *name;
    const uint8_t *value;
    while (tar_xattr_next(&put->reader->entry.xattrs, &at, &name, &value, &length))
        if (xattr_wanted(name) && fsetxattr(fd, name, value, length, 0) && errno != EOPNOTSUPP &&
            errno != EPERM)
            return put_fail(put, errno, "setxattr");
    return 0;
}

static void times_of(const struct tar_entry *entry, struct timespec times[2])
{
    times[0] = times[1] = (struct timespec){.tv_sec = entry->mtime, .tv_nsec = entry->mtime_ns};
}

/* Owner before mode: chown(2) takes the setuid bit away. Times last. */
static int set_metadata(struct put *put, int fd)
{
    const struct tar_entry *entry = &put->reader->entry;
    struct timespec times[2];
    times_of(entry, times);
    if (fchown(fd, (uid_t)entry->uid, (gid_t)entry->gid))
        return put_fail(put, errno, "chown");
    int error = set_xattrs(put, fd);
    if (error)
        return error;
    if (fchmod(fd, entry->mode))
        return put_fail(put, errno, "chmod");
    if (entry->type == TAR_FILE && futimens(fd, times))
        return put_fail(put, errno, "utimes");
    return 0;
}

static int write_all(int fd, const uint8_t *data, size_t length)
{
    while (length) {
        ssize_t done = write(fd, data, length);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        data += done;
        length -= (size_t)done;
    }
    return 0;
}

static int put_data(struct put *put, int fd)
{
    const uint8_t *data;
    ssize_t part;
    while ((part = tar_read_data(put->reader, &data)) > 0) {
        int error = write_all(fd, data, (size_t)part);
        if (error)
            return put_fail(put, -error, "write");
    }
    return (int)part;
}

static int put_file(struct put *put, int parent, const char *base)
{
    int fd = openat(parent, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return put_fail(put, errno, "open");
    int error = put_data(put, fd);
    if (!error)
        error = set_metadata(put, fd);
    close(fd);
    return error;
}

/* Remembers a directory's time: what is put into it later would change it. */
static int put_later(struct put *put)
{
    size_t bytes = sizeof(struct later) + strlen(put->path) + 1;
    if (put->later_bytes + bytes > LATER_MOST)
        return 0;
    struct later *later = malloc(bytes);
    if (!later)
        return put_fail(put, ENOMEM, "utimes");
    later->next = put->later;
    later->mtime = put->reader->entry.mtime;
    later->mtime_ns = put->reader->entry.mtime_ns;
    strcpy(later->path, put->path);
    put->later = later;
    put->later_bytes += bytes;
    return 0;
}

static int put_directory(struct put *put, int parent, const char *base, bool exists)
{
    if (!exists && mkdirat(parent, base, 0700))
        return put_fail(put, errno, "mkdir");
    int fd = openat(parent, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return put_fail(put, errno, "open");
    int error = set_metadata(put, fd);
    close(fd);
    return error ? error : put_later(put);
}

static int put_symlink(struct put *put, int parent, const char *base)
{
    const struct tar_entry *entry = &put->reader->entry;
    struct timespec times[2];
    times_of(entry, times);
    if (symlinkat(entry->link, parent, base))
        return put_fail(put, errno, "symlink");
    if (fchownat(parent, base, (uid_t)entry->uid, (gid_t)entry->gid, AT_SYMLINK_NOFOLLOW))
        return put_fail(put, errno, "lchown");
    utimensat(parent, base, times, AT_SYMLINK_NOFOLLOW);
    return 0;
}

static int put_special(struct put *put, int parent, const char *base)
{
    const struct tar_entry *entry = &put->reader->entry;
    mode_t kind = entry->type == TAR_FIFO        ? S_IFIFO
                  : entry->type == TAR_CHARACTER ? S_IFCHR
                                                 : S_IFBLK;
    struct timespec times[2];
    times_of(entry, times);
    if (mknodat(parent, base, kind | (entry->mode & 0777), makedev(entry->major, entry->minor)))
        return put_fail(put, errno, "mknod");
    if (fchownat(parent, base, (uid_t)entry->uid, (gid_t)entry->gid, AT_SYMLINK_NOFOLLOW))
        return put_fail(put, errno, "lchown");
    utimensat(parent, base, times, AT_SYMLINK_NOFOLLOW);
    return 0;
}

/* A hard link's target is named from the directory that the tar is put into. */
static int put_link(struct put *put, int parent, const char *base)
{
    char cleaned[ARCHIVE_PATH], target[ARCHIVE_PATH];
    const char *link = put->reader->entry.link;
    if (archive_escapes(link))
        return archive_fail(put->detail, EINVAL, "invalid hardlink \"%s\" -> \"%s\"", put->path,
                            link);
    if (archive_clean(link, cleaned))
        return put_fail(put, ENAMETOOLONG, "link");
    int error = join(put, cleaned, target);
    if (error)
        return error;
    char *slash = strrchr(target, '/');
    *slash = 0;
    int from = archive_open_in(put->rootfd, target, O_PATH | O_DIRECTORY);
    *slash = '/';
    if (from < 0)
        return put_fail(put, -from, "link");
    if (linkat(from, slash + 1, parent, base, 0))
        error = archive_fail(put->detail, errno == ENOENT ? EINVAL : errno, "link %s %s: %s",
                             target, put->path, archive_reason(errno));
    close(from);
    return error;
}

static int put_kind(struct put *put, int parent, const char *base, bool exists)
{
    switch (put->reader->entry.type) {
    case TAR_FILE:
        return put_file(put, parent, base);
    case TAR_HARD_LINK:
        return put_link(put, parent, base);
    case TAR_SYMLINK:
        return put_symlink(put, parent, base);
    case TAR_DIRECTORY:
        return put_directory(put, parent, base, exists);
    default:
        return put_special(put, parent, base);
    }
}

static int put_entry(struct put *put)
{
    char cleaned[ARCHIVE_PATH];
    const char *name = put->reader->entry.name, *base = NULL;
    if (archive_escapes(name))
        return archive_fail(put->detail, EINVAL, "\"%s\" is outside of \"%s\"", name, put->dest);
    if (archive_clean(name, cleaned))
        return put_fail(put, ENAMETOOLONG, "open");
    if (!cleaned[1]) /* the directory itself: it stays as it is */
        return 0;
    int error = join(put, cleaned, put->path);
    int parent = error ? error : open_parent(put, &base);
    if (parent < 0)
        return parent;
    int exists = make_place(put, parent, base);
    return exists < 0 ? exists : put_kind(put, parent, base, exists);
}

static void set_times(struct put *put)
{
    for (const struct later *later = put->later; later; later = later->next) {
        struct timespec time = {.tv_sec = later->mtime, .tv_nsec = later->mtime_ns};
        struct timespec times[2] = {time, time};
        int fd = archive_open_in(put->rootfd, later->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (fd < 0)
            continue; /* the tar or the container has replaced it */
        futimens(fd, times);
        close(fd);
    }
}

static void put_free(struct put *put)
{
    forget_parent(put);
    while (put->later) {
        struct later *next = put->later->next;
        free(put->later);
        put->later = next;
    }
    free(put->reader);
    free(put);
}

static int put_all(struct put *put)
{
    int got;
    while ((got = tar_read_entry(put->reader)) > 0) {
        int error = put_entry(put);
        if (error)
            return error;
    }
    if (!got)
        got = tar_read_rest(put->reader);
    if (!got)
        set_times(put);
    return got;
}

/* The directory to put into must be there before anything is read. */
static int check_place(int rootfd, const struct archive_place *place, char *detail)
{
    int fd = archive_open_in(rootfd, place->path, O_PATH | O_DIRECTORY);
    if (fd == -ENOTDIR)
        return archive_fail(detail, ENOTDIR, "extraction point is not a directory");
    if (fd < 0)
        return archive_fail(detail, -fd, "lstat %s: %s", place->path, archive_reason(-fd));
    bool pseudo = archive_is_pseudo(fd);
    close(fd);
    if (pseudo)
        return archive_fail(detail, ENOENT, "lstat %s: it is not stored anywhere", place->path);
    return 0;
}

int archive_put(int rootfd, const char *path, int infd, unsigned flags, char detail[ARCHIVE_DETAIL])
{
    struct archive_place place;
    detail[0] = 0;
    int error = archive_place(path, &place, detail);
    if (!error)
        error = check_place(rootfd, &place, detail);
    if (error)
        return error;
    struct put *put = calloc(1, sizeof *put);
    struct tar_reader *reader = tar_reader_new(infd, detail);
    if (!put || !reader) {
        free(put);
        free(reader);
        return archive_fail(detail, ENOMEM, "out of memory");
    }
    *put = (struct put){.rootfd = rootfd,
                        .flags = flags,
                        .detail = detail,
                        .dest = place.path,
                        .reader = reader,
                        .parent = -1};
    mode_t before = umask(0);
    error = put_all(put);
    umask(before);
    put_free(put);
    return error;
}
