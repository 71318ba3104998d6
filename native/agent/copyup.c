/* Filling a new volume from the image: a whole folder with owners, modes, times, extended attributes
 * and hard links, as containerd/continuity's fs.CopyDir does for Docker.
 *
 * Both folders are reached by descriptor only; no link is followed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "child.h"

enum {
    DEPTH_MOST = 256, /* two descriptors each: below the usual limit of 1024 */
    LINKS_MOST = 1 << 20,
    XATTR_NAMES = 64 << 10,
    XATTR_VALUE = 64 << 10,
    CHUNK = 1 << 20,
};

/* A file with several names: where its first copy is. */
struct linked {
    dev_t device;
    ino_t inode;
    char *path; /* from the top of the target */
};

struct copy {
    int top; /* the target's top folder */
    struct linked *links;
    size_t link_count, link_room;
    char path[PATH_MOST + 1]; /* of what is being copied, from the top */
    char names[XATTR_NAMES], value[XATTR_VALUE];
};

static int copy_folder(struct copy *copy, int from, int to, int depth);

static int copy_xattrs(struct copy *copy, int from, int to)
{
    ssize_t length = flistxattr(from, copy->names, sizeof copy->names);
    if (length < 0)
        return errno == ENOTSUP ? 0 : -errno;
    for (const char *name = copy->names; name < copy->names + length; name += strlen(name) + 1) {
        ssize_t size = fgetxattr(from, name, copy->value, sizeof copy->value);
        /* The overlay's own attributes are not the file's; a share may know none at all. */
        if (size < 0 || !strncmp(name, "trusted.overlay.", 16))
            continue;
        if (fsetxattr(to, name, copy->value, (size_t)size, 0) && errno != ENOTSUP && errno != EPERM)
            return -errno;
    }
    return 0;
}

static int copy_bytes(int from, int to, off_t size)
{
    for (off_t done = 0; done < size;) {
        ssize_t moved = sendfile(to, from, NULL, CHUNK);
        if (moved < 0)
            return -errno;
        if (!moved)
            break;
        done += moved;
    }
    return 0;
}

static int set_attributes(struct copy *copy, int from, int to, const struct stat *found)
{
    const struct timespec times[] = {found->st_atim, found->st_mtim};
    /* The mode after the owner, which takes set-user-ID away; times last. */
    if (fchown(to, found->st_uid, found->st_gid) || fchmod(to, found->st_mode & 07777))
        return -errno;
    int error = copy_xattrs(copy, from, to);
    if (error)
        return error;
    return futimens(to, times) ? -errno : 0;
}

/* Hard links */

static const char *known_copy(const struct copy *copy, const struct stat *found)
{
    for (size_t i = 0; found->st_nlink > 1 && i < copy->link_count; i++)
        if (copy->links[i].inode == found->st_ino && copy->links[i].device == found->st_dev)
            return copy->links[i].path;
    return NULL;
}

static int remember(struct copy *copy, const struct stat *found)
{
    if (found->st_nlink < 2)
        return 0;
    if (copy->link_count == copy->link_room) {
        size_t room = copy->link_room ? 2 * copy->link_room : 64;
        struct linked *grown =
            room > LINKS_MOST ? NULL : realloc(copy->links, room * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        copy->links = grown;
        copy->link_room = room;
    }
    char *path = strdup(copy->path);
    if (!path)
        return -ENOMEM;
    copy->links[copy->link_count++] = (struct linked){found->st_dev, found->st_ino, path};
    return 0;
}

/* Entries */

static int copy_file(struct copy *copy, int from, int to, const char *name,
                     const struct stat *found)
{
    int source = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (source < 0)
        return -errno;
    int target = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int error = target < 0 ? -errno : copy_bytes(source, target, found->st_size);
    if (!error)
        error = set_attributes(copy, source, target, found);
    if (target >= 0)
        close(target);
    close(source);
    return error;
}

static int copy_link(int from, int to, const char *name, const struct stat *found)
{
    char text[PATH_MOST + 1];
    const struct timespec times[] = {found->st_atim, found->st_mtim};
    ssize_t length = readlinkat(from, name, text, sizeof text - 1);
    if (length < 0)
        return -errno;
    text[length] = 0;
    if (symlinkat(text, to, name) ||
        fchownat(to, name, found->st_uid, found->st_gid, AT_SYMLINK_NOFOLLOW) ||
        utimensat(to, name, times, AT_SYMLINK_NOFOLLOW))
        return -errno;
    return 0;
}

/* Device nodes, pipes, sockets. The share makes no device nodes: those are left out. */
static int copy_node(int to, const char *name, const struct stat *found)
{
    if (mknodat(to, name, found->st_mode, found->st_rdev))
        return errno == EPERM ? 0 : -errno;
    if (fchownat(to, name, found->st_uid, found->st_gid, AT_SYMLINK_NOFOLLOW) ||
        fchmodat(to, name, found->st_mode & 07777, 0))
        return -errno;
    return 0;
}

static int copy_subfolder(struct copy *copy, int from, int to, const char *name, int depth)
{
    if (depth >= DEPTH_MOST)
        return -ELOOP;
    if (mkdirat(to, name, 0700))
        return -errno;
    int source = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int target = source < 0 ? -1
                            : openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int error = target < 0 ? -errno : copy_folder(copy, source, target, depth + 1);
    if (source >= 0)
        close(source);
    if (target >= 0)
        close(target);
    return error;
}

static int copy_entry(struct copy *copy, int from, int to, const char *name, int depth)
{
    struct stat found;
    if (fstatat(from, name, &found, AT_SYMLINK_NOFOLLOW))
        return -errno;
    if (S_ISDIR(found.st_mode))
        return copy_subfolder(copy, from, to, name, depth);
    const char *first = known_copy(copy, &found);
    if (first)
        return linkat(copy->top, first, to, name, 0) ? -errno : 0;
    int error = S_ISREG(found.st_mode)   ? copy_file(copy, from, to, name, &found)
                : S_ISLNK(found.st_mode) ? copy_link(from, to, name, &found)
                                         : copy_node(to, name, &found);
    return error ? error : remember(copy, &found);
}

static int copy_entries(struct copy *copy, DIR *list, int from, int to, int depth)
{
    struct dirent *entry;
    size_t before = strlen(copy->path);
    int error = 0;
    while (!error && (entry = readdir(list))) {
        const char *name = entry->d_name;
        if (!strcmp(name, ".") || !strcmp(name, ".."))
            continue;
        int length = snprintf(copy->path + before, sizeof copy->path - before, "%s%s",
                              before ? "/" : "", name);
        error = (size_t)length >= sizeof copy->path - before
                    ? -ENAMETOOLONG
                    : copy_entry(copy, from, to, name, depth);
        copy->path[before] = 0;
    }
    return error;
}

static int copy_folder(struct copy *copy, int from, int to, int depth)
{
    struct stat found;
    int again = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = again < 0 ? NULL : fdopendir(again);
    if (!list || fstat(from, &found)) {
        int error = -errno;
        if (list)
            closedir(list);
        else if (again >= 0)
            close(again);
        return error;
    }
    int error = copy_entries(copy, list, from, to, depth);
    closedir(list);
    return error ? error : set_attributes(copy, from, to, &found);
}

static bool is_empty(int folder)
{
    int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = again < 0 ? NULL : fdopendir(again);
    if (!list)
        return false;
    struct dirent *entry;
    bool empty = true;
    while (empty && (entry = readdir(list)))
        empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    closedir(list);
    return empty;
}

int copy_up(int from, int to)
{
    if (!is_empty(to))
        return 0;
    struct copy *copy = calloc(1, sizeof *copy);
    if (!copy)
        return -ENOMEM;
    copy->top = to;
    int error = copy_folder(copy, from, to, 0);
    for (size_t i = 0; i < copy->link_count; i++)
        free(copy->links[i].path);
    free(copy->links);
    free(copy);
    return error;
}
