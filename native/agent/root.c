/* Mounting and unmounting roots. See root.h.
 *
 * Overlay options: `volatile` is not used, since a VMM is killed without warning and the container
 * starts again on the same disk; no index, metacopy or redirects, so that the upper directory alone is
 * a complete difference (commit, diff); xino, so that files of all layers have one st_dev, as with
 * Docker, where all layers lie in one file system (tar --one-file-system, find -xdev, du -x). */
#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "disk.h"
#include "state.h"

#define OVERLAY "index=off,metacopy=off,redirect_dir=nofollow,xino=on"

enum { OPTIONS_ROOM = 4096, BUSY_ROUNDS = 400, BUSY_MS = 5 };

/* Layers that are mounted or about to be. */
struct shared_layer {
    struct shared_layer *next;
    unsigned number, users;
    int kind;
    char path[];
};

static struct shared_layer *shared_layers;

static struct shared_layer *layer_of(const struct source_spec *source)
{
    /* Numbers never come again: one may still be about to be unmounted. */
    static unsigned last_number;
    for (struct shared_layer *layer = shared_layers; layer; layer = layer->next)
        if (layer->kind == source->kind && !strcmp(layer->path, source->path))
            return layer;
    size_t length = strlen(source->path) + 1;
    struct shared_layer *layer = malloc(sizeof *layer + length);
    if (!layer)
        return NULL;
    *layer = (struct shared_layer){shared_layers, ++last_number, 0, source->kind};
    memcpy(layer->path, source->path, length);
    shared_layers = layer;
    return layer;
}

int layers_take(const struct root_spec *root, struct layers *layers)
{
    layers->count = 0;
    for (size_t i = 0; i < root->layer_count; i++) {
        struct shared_layer *layer = layer_of(&root->layers[i]);
        if (!layer) {
            layers_drop(layers);
            return -ENOMEM;
        }
        layer->users++;
        layers->numbers[layers->count++] = layer->number;
    }
    return 0;
}

static bool drop(unsigned number)
{
    for (struct shared_layer **at = &shared_layers; *at; at = &(*at)->next) {
        struct shared_layer *layer = *at;
        if (layer->number != number)
            continue;
        if (--layer->users)
            return false;
        *at = layer->next;
        free(layer);
        return true;
    }
    return false;
}

void layers_drop(struct layers *layers)
{
    size_t unused = 0;
    for (size_t i = 0; i < layers->count; i++)
        if (drop(layers->numbers[i]))
            layers->numbers[unused++] = layers->numbers[i];
    layers->count = unused;
}

/* Mounting */

static bool is_mount_point(const char *path)
{
    struct statx found = {0};
    return !statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &found) &&
           found.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

static int mount_layer(const struct source_spec *source, unsigned number, struct failure *failure)
{
    char target[32], path[PATH_MOST + 1];
    snprintf(target, sizeof target, "/l/%u", number);
    if (is_mount_point(target))
        return 0;
    if (disk_path(source, path, failure))
        return -1;
    if (mkdir(target, 0700) && errno != EEXIST)
        return fail_errno(failure, STAGE_ROOT, errno, "mkdir %s", target);
    if (mount(path, target, "erofs", MS_RDONLY, NULL))
        return fail_errno(failure, STAGE_ROOT, errno, "mounting layer %s", source->path);
    return 0;
}

/* Two children may be mounting the same layers: the lock lets the second see what the first did. */
static int mount_layers(const struct root_spec *root, const struct layers *layers,
                        struct failure *failure)
{
    int lock = open("/l", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0 || flock(lock, LOCK_EX))
        return fail_errno(failure, STAGE_ROOT, errno, "locking /l");
    int result = 0;
    for (size_t i = 0; i < root->layer_count && !result; i++)
        result = mount_layer(&root->layers[i], layers->numbers[i], failure);
    close(lock);
    return result;
}

static int make_folders(const char *id, struct failure *failure)
{
    static const char *const names[] = {"", "/disk", "/root", "/empty", "/files"};
    char path[CONTAINER_PATH];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "/c/%s%s", id, names[i]);
        if (mkdir(path, 0700) && errno != EEXIST)
            return fail_errno(failure, STAGE_ROOT, errno, "mkdir %s", path);
    }
    return 0;
}

/* A disk that was just plugged in may have the node of one that was taken out before. */
static int mount_ext4(const char *path, const char *target)
{
    for (int round = 0; round < BUSY_ROUNDS; round++) {
        if (!mount(path, target, "ext4", 0, "discard,errors=remount-ro"))
            return 0;
        if (errno != ENXIO)
            break;
        nanosleep(&(struct timespec){.tv_nsec = BUSY_MS * 1000000}, NULL);
    }
    return -1;
}

/* Without a disk the guest's memory takes the changes. */
static int mount_disk(const char *id, const struct source_spec *disk, struct failure *failure)
{
    char target[CONTAINER_PATH], path[PATH_MOST + 1];
    snprintf(target, sizeof target, "/c/%s/disk", id);
    if (disk->kind && disk_path(disk, path, failure))
        return -1;
    int failed = disk->kind ? mount_ext4(path, target)
                            : mount("tmpfs", target, "tmpfs", 0, "mode=0700");
    if (failed)
        return fail_errno(failure, STAGE_ROOT, errno, "mounting disk %s", disk->path);
    int dir = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool made = dir >= 0 && (!mkdirat(dir, "upper", 0755) || errno == EEXIST) &&
                (!mkdirat(dir, "work", 0700) || errno == EEXIST);
    int error = errno;
    close(dir);
    return made ? 0 : fail_errno(failure, STAGE_ROOT, error, "preparing disk %s", disk->path);
}

static int mount_overlay(const char *id, const struct layers *layers, struct failure *failure)
{
    char options[OPTIONS_ROOM], target[CONTAINER_PATH];
    size_t length = (size_t)snprintf(options, sizeof options,
                                     OVERLAY ",upperdir=/c/%s/disk/upper,workdir=/c/%s/disk/work,"
                                             "lowerdir=",
                                     id, id);
    /* Even 128 layers fit: their paths are that short. */
    for (size_t i = 0; i < layers->count; i++)
        length += (size_t)snprintf(options + length, sizeof options - length, "%s/l/%u",
                                   i ? ":" : "", layers->numbers[i]);
    if (!layers->count)
        snprintf(options + length, sizeof options - length, "/c/%s/empty", id);
    snprintf(target, sizeof target, "/c/%s/root", id);
    if (mount("overlay", target, "overlay", 0, options))
        return fail_errno(failure, STAGE_ROOT, errno, "mounting the root of %zu layers",
                          layers->count);
    return 0;
}

int root_mount(const char *id, const struct root_spec *root, const struct layers *layers,
               struct failure *failure)
{
    umask(0);
    if (make_folders(id, failure) || mount_layers(root, layers, failure) ||
        mount_disk(id, &root->disk, failure))
        return -1;
    return mount_overlay(id, layers, failure);
}

/* Unmounting */

/* What the last process of the container held goes away a moment after it. */
static int unmount(const char *path)
{
    for (int round = 0; round < BUSY_ROUNDS; round++) {
        if (!umount2(path, UMOUNT_NOFOLLOW) || errno == EINVAL || errno == ENOENT)
            return 0;
        if (errno != EBUSY)
            break;
        nanosleep(&(struct timespec){.tv_nsec = BUSY_MS * 1000000}, NULL);
    }
    int error = -errno;
    umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
    return error;
}

static void remove_folder(const char *id)
{
    static const char *const names[] = {"disk/upper", "disk/work", "disk", "root",
                                        "view",       "empty",     "files"};
    char path[CONTAINER_PATH];
    snprintf(path, sizeof path, "/c/%s", id);
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return;
    for (unsigned i = 0; i < FILES_MOST; i++) {
        snprintf(path, sizeof path, "files/%u", i);
        if (unlinkat(dir, path, 0))
            break;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlinkat(dir, names[i], AT_REMOVEDIR);
    close(dir);
    snprintf(path, sizeof path, "/c/%s", id);
    rmdir(path);
}

int root_unmount(const char *id, const struct layers *unused)
{
    static const char *const names[] = {"root", "disk"};
    char path[CONTAINER_PATH];
    int error = 0;
    snprintf(path, sizeof path, "/c/%s/view", id);
    umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW); /* there is one if something is mounted in it */
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "/c/%s/%s", id, names[i]);
        int failed = unmount(path);
        error = error ? error : failed;
    }
    for (size_t i = 0; i < unused->count; i++) {
        snprintf(path, sizeof path, "/l/%u", unused->numbers[i]);
        unmount(path);
        rmdir(path);
    }
    remove_folder(id);
    return error;
}
