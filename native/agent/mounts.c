/* The mounts that a container asks for: folders and files of the sandbox's share, tmpfs, private
 * files, sockets of the host (messages.py: Mount). What lies outside the root is taken as detached
 * mounts before the root is changed, and put in place from inside, where no path can lead out any
 * more. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "sockets.h"
#include "state.h"
#include "sys.h"

#define SHARE "/share"
#define PROPAGATION (MS_SHARED | MS_SLAVE | MS_PRIVATE | MS_UNBINDABLE)

static int clone_tree(int fd, int *tree)
{
    *tree = sys_open_tree(fd, "", SYS_OPEN_TREE_CLONE | SYS_OPEN_TREE_CLOEXEC | SYS_AT_EMPTY_PATH |
                                      SYS_AT_RECURSIVE);
    return *tree < 0 ? -errno : 0;
}

/* The share's content belongs to containers: a link in it is never followed. */
static int open_shared(int share, const char *path, uint64_t flags)
{
    return sys_openat2(share, *path ? path : ".", O_PATH | O_CLOEXEC | flags, 0,
                       RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
}

static int share_tree(const struct mount_spec *mount, int *tree, struct failure *failure)
{
    const char *path = mount->source + strspn(mount->source, "/");
    int share = open(SHARE, O_PATH | O_DIRECTORY | O_CLOEXEC);
    /* Each of the host's mounts is one of its own here, made when somebody looks into its folder:
     * without O_DIRECTORY that would be the container, and find it mounted twice. */
    int fd = share < 0 ? -1 : open_shared(share, path, O_DIRECTORY);
    if (fd < 0 && errno == ENOTDIR)
        fd = open_shared(share, path, 0);
    int error = fd < 0 ? -errno : clone_tree(fd, tree);
    if (fd >= 0)
        close(fd);
    if (share >= 0)
        close(share);
    return error ? fail_errno(failure, STAGE_MOUNT, -error, "opening share %s", mount->source) : 0;
}

/* A sibling's file becomes this container's as well, and outlives the sibling. False: it has none. */
static bool borrow_file(const struct mount_spec *mount, const char *path)
{
    char theirs[CONTAINER_PATH];
    const struct container *sibling = *mount->source ? container_find(mount->source) : NULL;
    for (size_t i = 0; sibling && i < sibling->file_count; i++) {
        if (strcmp(sibling->files[i], mount->target))
            continue;
        snprintf(theirs, sizeof theirs, "/c/%s/files/%zu", sibling->id, i);
        unlink(path);
        return !link(theirs, path);
    }
    return false;
}

static int borrowed_tree(const char *path, int *tree)
{
    int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    int error = fd < 0 ? -errno : clone_tree(fd, tree);
    if (fd >= 0)
        close(fd);
    return error;
}

static int file_tree(const char *id, const struct mount_spec *mount, size_t number, int *tree,
                     struct failure *failure)
{
    char path[CONTAINER_PATH];
    if (number >= FILES_MOST)
        return fail(failure, STAGE_MOUNT, E2BIG, "too many private files");
    snprintf(path, sizeof path, "/c/%s/files/%zu", id, number);
    if (borrow_file(mount, path) && !borrowed_tree(path, tree))
        return 0;
    unlink(path); /* what a start that failed has left may be somebody else's, too */
    mode_t mode = mount->mode ? mount->mode : 0644;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
    int error = fd < 0 || write(fd, mount->content ? mount->content : (const uint8_t *)"",
                                mount->content_length) != (ssize_t)mount->content_length
                    ? -errno
                    : clone_tree(fd, tree);
    if (fd >= 0)
        close(fd);
    return error ? fail_errno(failure, STAGE_MOUNT, -error, "writing %s", mount->target) : 0;
}

/* The agent listens there already. */
static int socket_tree(const char *id, const struct mount_spec *mount, size_t number, int *tree,
                       struct failure *failure)
{
    char path[SOCKET_PATH];
    socket_path(path, id, number);
    int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    int error = fd < 0 ? -errno : clone_tree(fd, tree);
    if (fd >= 0)
        close(fd);
    return error ? fail_errno(failure, STAGE_MOUNT, -error, "opening socket %s", mount->target) : 0;
}

int mount_tree(const char *id, const struct mount_spec *mount, size_t number, int *tree,
               struct failure *failure)
{
    *tree = -1;
    if (mount->kind == MOUNT_KIND_SHARE)
        return share_tree(mount, tree, failure);
    if (mount->kind == MOUNT_KIND_FILE)
        return file_tree(id, mount, number, tree, failure);
    if (mount->kind == MOUNT_KIND_SOCKET)
        return socket_tree(id, mount, number, tree, failure);
    return mount->kind == MOUNT_KIND_TMPFS
               ? 0
               : fail(failure, STAGE_MOUNT, EINVAL, "unknown kind of mount %d", mount->kind);
}

/* Attaching */

static uint64_t attributes(unsigned long flags)
{
    return (flags & MS_RDONLY ? SYS_ATTR_RDONLY : 0u) | (flags & MS_NOSUID ? SYS_ATTR_NOSUID : 0u) |
           (flags & MS_NODEV ? SYS_ATTR_NODEV : 0u) | (flags & MS_NOEXEC ? SYS_ATTR_NOEXEC : 0u);
}

static int set_attributes(int tree, unsigned long flags)
{
    struct sys_mount_attr attr = {.set = attributes(flags), .propagation = flags & PROPAGATION};
    if (!attr.set && !attr.propagation)
        return 0;
    return sys_mount_setattr(tree, SYS_AT_RECURSIVE, &attr) ? -errno : 0;
}

/* Docker fills a new volume once, when the container is made; here the first start does. */
static int fill(int tree, int target)
{
    int from = openat(target, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int to = openat(tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = from < 0 || to < 0 ? -errno : copy_up(from, to);
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return error == -EROFS ? 0 : error;
}

static int attach_bind(const struct mount_spec *mount, int tree)
{
    struct stat source, found;
    bool made;
    if (fstat(tree, &source))
        return -errno;
    bool directory = S_ISDIR(source.st_mode);
    int target = target_open(mount->target, directory, &made);
    if (target < 0)
        return target;
    int error = fstat(target, &found)                      ? -errno
                : S_ISDIR(found.st_mode) != directory ? -ENOTDIR
                                                           : 0;
    if (!error && directory && mount->copy_up && !made)
        error = fill(tree, target);
    if (!error)
        error = set_attributes(tree, mount->flags);
    if (!error && sys_attach(tree, target))
        error = -errno;
    close(target);
    return error;
}

/* As runc: where the folder was there already, the tmpfs takes over its mode. */
static int attach_tmpfs(const struct mount_spec *mount_spec)
{
    struct stat found;
    bool made;
    char data[4096];
    int target = target_open(mount_spec->target, true, &made);
    if (target < 0)
        return target;
    int error = fstat(target, &found) || fchdir(target) ? -errno : 0;
    close(target);
    if (error)
        return error;
    *data = 0;
    if (!made)
        snprintf(data, sizeof data, "mode=%04o,", found.st_mode & 07777);
    size_t length = strlen(data);
    if (snprintf(data + length, sizeof data - length, "%s", mount_spec->data) >=
        (int)(sizeof data - length))
        return -E2BIG;
    return mount("tmpfs", ".", "tmpfs", mount_spec->flags & ~(unsigned long)PROPAGATION, data)
               ? -errno
               : 0;
}

static size_t depth(const char *path)
{
    size_t names = 0;
    for (; *path; path++)
        names += *path == '/' && path[1] && path[1] != '/';
    return names;
}

/* Docker mounts what lies less deep first, whatever the order it was asked for. */
static size_t *order(const struct container_spec *spec)
{
    size_t *sorted = calloc(spec->mount_count + 1, sizeof *sorted);
    for (size_t i = 0; sorted && i < spec->mount_count; i++) {
        size_t at = i, here = depth(spec->mounts[i].target);
        for (; at && depth(spec->mounts[sorted[at - 1]].target) > here; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = i;
    }
    return sorted;
}

static int attach(const struct mount_spec *mount, int tree, struct failure *failure)
{
    int error = tree < 0 ? attach_tmpfs(mount) : attach_bind(mount, tree);
    if (!error)
        return 0;
    if (error == -ENOTDIR)
        return fail_errno(failure, STAGE_MOUNT, ENOTDIR,
                          "error mounting \"%s\" to rootfs at \"%s\": Are you trying to mount a "
                          "directory onto a file (or vice-versa)? Check if the specified host path "
                          "exists and is the expected type",
                          mount->source, mount->target);
    return fail_errno(failure, STAGE_MOUNT, -error, "error mounting \"%s\" to rootfs at \"%s\"",
                      tree < 0 ? "tmpfs" : mount->source, mount->target);
}

int mounts_attach(const struct container_spec *spec, const struct room *room,
                  struct failure *failure)
{
    size_t *sorted = order(spec);
    int result = sorted ? 0 : fail(failure, STAGE_MOUNT, ENOMEM, "no memory for mounts");
    for (size_t i = 0; i < spec->mount_count && !result; i++)
        result = attach(&spec->mounts[sorted[i]], room->trees[sorted[i]], failure);
    free(sorted);
    if (chdir("/") && !result)
        return fail_errno(failure, STAGE_MOUNT, errno, "chdir /");
    return result;
}

bool mounts_cover(const struct container_spec *spec, const char *target)
{
    size_t length = strlen(target);
    for (size_t i = 0; i < spec->mount_count; i++) {
        const char *path = spec->mounts[i].target;
        if (!strncmp(path, target, length) && !path[length + strspn(path + length, "/")])
            return true;
    }
    return false;
}
