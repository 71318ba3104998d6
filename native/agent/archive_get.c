/* A path, or a whole root, as a tar: Docker's cp from a container, and export.
 *
 * Names are dockerd's: "etc/..." for /etc and /etc/, "./..." for /etc/., "/..." for /. Volumes are
 * part of what is read, the kernel's own file systems and tmpfs below the path are not. */
#include "archive_pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sys.h"

static int get_entry(void *context, const struct archive_entry *entry, enum archive_walk_when when)
{
    struct archive_pack *pack = context;
    char name[2 * ARCHIVE_PATH];
    if (when == WALK_AFTER)
        return 0;
    snprintf(name, sizeof name, "%s/%s", pack->prefix, entry->path);
    return archive_pack_file(pack, entry->dirfd, entry->name, name, entry->st);
}

/* The directory that holds the place, open for looking up its base. */
static int parent_of(int rootfd, const struct archive_place *place)
{
    char path[ARCHIVE_PATH];
    strcpy(path, place->path);
    *strrchr(path, '/') = 0;
    return archive_open_in(rootfd, path, O_PATH | O_DIRECTORY);
}

static int get_one(struct archive_pack *pack, int rootfd, const struct archive_place *place,
                   const struct statx *st)
{
    int parent = parent_of(rootfd, place);
    if (parent < 0)
        return archive_fail(pack->detail, -parent, "lstat %s: %s", place->path,
                            archive_reason(-parent));
    int error = archive_pack_file(pack, parent, place->base, place->base, st);
    close(parent);
    return error;
}

static int get_directory(struct archive_pack *pack, int fd, const struct archive_place *place,
                         const struct statx *st)
{
    bool root = !place->dot && !place->path[1];
    pack->prefix = root ? "" : place->base;
    int error = archive_pack_file(pack, fd, ".", pack->prefix, st);
    return error || archive_is_pseudo(fd) ? error
                                          : archive_walk(fd, true, get_entry, pack, pack->detail);
}

static int get_place(struct archive_pack *pack, int rootfd, const char *path)
{
    struct archive_place place;
    struct statx st;
    int fd = archive_place(path, &place, pack->detail);
    if (!fd)
        fd = archive_place_open(rootfd, &place, pack->detail);
    if (fd < 0)
        return fd;
    int error = archive_statx(fd, "", &st);
    if (error)
        error =
            archive_fail(pack->detail, -error, "lstat %s: %s", place.path, archive_reason(-error));
    else if (S_ISDIR(st.stx_mode))
        error = get_directory(pack, fd, &place, &st);
    else
        error = get_one(pack, rootfd, &place, &st);
    close(fd);
    return error;
}

int archive_get(int rootfd, const char *path, int outfd, char detail[ARCHIVE_DETAIL])
{
    detail[0] = 0;
    struct archive_pack *pack = archive_pack_new(outfd, detail);
    return pack ? archive_pack_end(pack, get_place(pack, rootfd, path)) : -ENOMEM;
}

/* What is mounted on the root stays out: where the mount could not be left out before the walk, an
 * empty directory or file stands for what it hides. */
static int export_entry(void *context, const struct archive_entry *entry,
                        enum archive_walk_when when)
{
    struct archive_pack *pack = context;
    if (when == WALK_AFTER)
        return 0;
    if (entry->mounted && !S_ISDIR(entry->st->stx_mode))
        return archive_pack_empty(pack, entry->path, S_IFREG | 0755);
    int error = archive_pack_file(pack, entry->dirfd, entry->name, entry->path, entry->st);
    return error ? error : entry->mounted ? WALK_SKIP : WALK_ON;
}

int archive_export(int rootfd, int outfd, char detail[ARCHIVE_DETAIL])
{
    detail[0] = 0;
    struct archive_pack *pack = archive_pack_new(outfd, detail);
    if (!pack)
        return -ENOMEM;
    /* A copy of the mount alone shows what is below the mounts on it. The kernel refuses it for a
     * root that another mount namespace holds. */
    int alone =
        sys_open_tree(rootfd, "", SYS_OPEN_TREE_CLONE | SYS_OPEN_TREE_CLOEXEC | SYS_AT_EMPTY_PATH);
    int error = archive_walk(alone >= 0 ? alone : rootfd, false, export_entry, pack, detail);
    if (alone >= 0)
        close(alone);
    return archive_pack_end(pack, error);
}
