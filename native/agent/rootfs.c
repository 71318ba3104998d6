/* The container's root file system from inside its new mount namespace: pivot_root(2), then what
 * every container has (the defaults of moby's oci/defaults.go), then what it must not see. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "state.h"
#include "sys.h"

#define KERNEL_FLAGS (MS_NOSUID | MS_NOEXEC | MS_NODEV)

int room_collect(const struct container_spec *spec, struct room *room, struct failure *failure)
{
    room->trees = calloc(spec->mount_count + 1, sizeof *room->trees);
    if (!room->trees)
        return fail(failure, STAGE_MOUNT, ENOMEM, "no memory for mounts");
    size_t files = 0;
    for (size_t i = 0; i < spec->mount_count; i++) {
        const struct mount_spec *mount = &spec->mounts[i];
        size_t number = mount->kind == MOUNT_KIND_FILE ? files++ : i;
        if (mount_tree(spec->id, mount, number, &room->trees[i], failure))
            return -1;
    }
    devices_load(spec);
    int shown = cgroup_shown(spec->id, "cpu.max");
    if (shown >= 0) {
        room->cpu = sys_open_tree(shown, "", SYS_OPEN_TREE_CLONE | SYS_OPEN_TREE_CLOEXEC |
                                                 SYS_AT_EMPTY_PATH);
        close(shown);
    }
    if (spec->privileged)
        room->devices = open("/dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return 0;
}

int rootfs_pivot(const char *id, struct failure *failure)
{
    char root[CONTAINER_PATH];
    snprintf(root, sizeof root, "/c/%s/root", id);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return fail_errno(failure, STAGE_ROOT, errno, "making mounts private");
    /* pivot_root(2), NOTES: the old root is stacked on the new one and is what "." then means. */
    if (chdir(root) || sys_pivot_root(".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        return fail_errno(failure, STAGE_ROOT, errno, "pivot_root");
    return 0;
}

/* A link of the image at such a place would put the kernel's files somewhere else. */
static int real_folder(const char *path, struct failure *failure)
{
    struct stat found;
    if (lstat(path, &found)) {
        if (errno == ENOENT && !mkdir(path, 0755))
            return 0;
        return fail_errno(failure, STAGE_MOUNT, errno, "mkdir %s", path);
    }
    if (S_ISDIR(found.st_mode))
        return 0;
    return fail(failure, STAGE_MOUNT, ENOTDIR,
                "filesystem \"%s\" must be mounted on ordinary directory", path);
}

static int put_named(const char *name, const char *type, const char *target, unsigned long flags,
                     const char *data, struct failure *failure)
{
    if (!mount(name, target, type, flags, data))
        return 0;
    return fail_errno(failure, STAGE_MOUNT, errno, "error mounting \"%s\" to rootfs at \"%s\"", type,
                      target);
}

static int put(const char *type, const char *target, unsigned long flags, const char *data,
               struct failure *failure)
{
    return put_named(type, type, target, flags, data, failure);
}

static int make_shm(const struct container_spec *spec, const struct room *room,
                    struct failure *failure)
{
    char data[64];
    if (mounts_cover(spec, "/dev/shm") || spec->shm_size < 0)
        return 0;
    if (room->shm >= 0) {
        int target = open("/dev/shm", O_PATH | O_DIRECTORY | O_CLOEXEC);
        int error = target < 0 || sys_attach(room->shm, target) ? errno : 0;
        close(target);
        return error ? fail_errno(failure, STAGE_MOUNT, error, "sharing /dev/shm") : 0;
    }
    int64_t size = spec->shm_size ? spec->shm_size : 64 << 20;
    snprintf(data, sizeof data, "mode=1777,size=%lld", (long long)size);
    return put_named("shm", "tmpfs", "/dev/shm", KERNEL_FLAGS, data, failure);
}

static int make_dev(const struct container_spec *spec, const struct room *room,
                    struct failure *failure)
{
    static const char pts[] = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    if (mounts_cover(spec, "/dev"))
        return 0;
    if (real_folder("/dev", failure) ||
        put("tmpfs", "/dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k", failure))
        return -1;
    if (mkdir("/dev/pts", 0755) || (spec->shm_size >= 0 && mkdir("/dev/shm", 01777)) ||
        mkdir("/dev/mqueue", 0755))
        return fail_errno(failure, STAGE_MOUNT, errno, "making folders in /dev");
    if (devices_make(spec, room->devices, failure))
        return -1;
    return put("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, pts, failure);
}

/* What lies in /dev, but comes after /sys in the order of moby's oci/defaults.go. */
static int make_ipc(const struct container_spec *spec, const struct room *room,
                    struct failure *failure)
{
    if (mounts_cover(spec, "/dev"))
        return 0;
    if (!mounts_cover(spec, "/dev/mqueue") &&
        put("mqueue", "/dev/mqueue", KERNEL_FLAGS, NULL, failure))
        return -1;
    return make_shm(spec, room, failure);
}

/* A guest's group of cgroup namespace "host" has no such file. */
static int show_cpu(const struct container_spec *spec, const struct room *room,
                    struct failure *failure)
{
    struct sys_mount_attr attr = {.set = spec->privileged ? 0u : SYS_ATTR_RDONLY};
    int target = open("/sys/fs/cgroup/cpu.max", O_PATH | O_CLOEXEC);
    if (target < 0 || room->cpu < 0) {
        if (target >= 0)
            close(target);
        return 0;
    }
    int error = (attr.set && sys_mount_setattr(room->cpu, 0, &attr)) || sys_attach(room->cpu, target)
                    ? errno
                    : 0;
    close(target);
    return error ? fail_errno(failure, STAGE_MOUNT, error, "showing cpu.max") : 0;
}

static int make_sys(const struct container_spec *spec, const struct room *room,
                    struct failure *failure)
{
    unsigned long flags = KERNEL_FLAGS | (spec->privileged ? 0 : MS_RDONLY);
    if (mounts_cover(spec, "/sys"))
        return 0;
    if (real_folder("/sys", failure) || put("sysfs", "/sys", flags, NULL, failure))
        return -1;
    if (mounts_cover(spec, "/sys/fs/cgroup"))
        return 0;
    return put_named("cgroup", "cgroup2", "/sys/fs/cgroup", flags, NULL, failure) ||
                   show_cpu(spec, room, failure)
               ? -1
               : 0;
}

/* What programs look for, made where it is missing as moby's daemon/initlayer does. Mount points are
 * made when something is mounted on them; archive_stub.c knows all of these. */
static int make_marks(struct failure *failure)
{
    int fd = open("/.dockerenv", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0755);
    if (fd < 0 && errno != EEXIST)
        return fail_errno(failure, STAGE_ROOT, errno, "making /.dockerenv");
    if (fd >= 0)
        close(fd);
    int error = symlink("/proc/mounts", "/etc/mtab") ? errno : 0;
    if (error == ENOENT && !mkdir("/etc", 0755))
        error = symlink("/proc/mounts", "/etc/mtab") ? errno : 0;
    /* An /etc that leads nowhere is the image's own affair. */
    return error && error != EEXIST && error != ENOENT && error != ENOTDIR
               ? fail_errno(failure, STAGE_ROOT, error, "making /etc/mtab")
               : 0;
}

int rootfs_standard(const struct container_spec *spec, const struct room *room,
                    struct failure *failure)
{
    if (make_marks(failure))
        return -1;
    if (real_folder("/proc", failure) || put("proc", "/proc", KERNEL_FLAGS, NULL, failure))
        return -1;
    return make_dev(spec, room, failure) || make_sys(spec, room, failure) ||
                   make_ipc(spec, room, failure)
               ? -1
               : 0;
}

/* Hiding */

static bool in_kernel_files(const char *path)
{
    return !strncmp(path, "/proc/", 6) || !strncmp(path, "/sys/", 5);
}

/* In /proc and /sys nobody but the kernel decides what a path means: no need to hold it open. */
static int mask_kernel(const char *path)
{
    if (!mount("/dev/null", path, NULL, MS_BIND, NULL) || errno == ENOENT)
        return 0;
    if (errno != ENOTDIR)
        return -errno;
    return mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0k") ? -errno : 0;
}

static int readonly_kernel(const char *path)
{
    if (mount(path, path, NULL, MS_BIND | MS_REC, NULL))
        return errno == ENOENT ? 0 : -errno;
    return mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | KERNEL_FLAGS, NULL) ? -errno
                                                                                          : 0;
}

static int open_target(const char *path)
{
    int fd = sys_openat2(AT_FDCWD, path, O_PATH | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
    return fd < 0 ? -errno : fd;
}

static int mask_other(const char *path)
{
    struct stat found;
    int target = open_target(path), error = 0;
    if (target < 0)
        return target == -ENOENT ? 0 : target;
    if (fstat(target, &found)) {
        error = -errno;
    } else if (S_ISDIR(found.st_mode)) {
        error = fchdir(target) || mount("tmpfs", ".", "tmpfs", MS_RDONLY, "size=0k") ? -errno : 0;
    } else {
        int tree = sys_open_tree(AT_FDCWD, "/dev/null", SYS_OPEN_TREE_CLONE | SYS_OPEN_TREE_CLOEXEC);
        error = tree < 0 || sys_attach(tree, target) ? -errno : 0;
        close(tree);
    }
    close(target);
    return error;
}

static int readonly_other(const char *path)
{
    int target = open_target(path);
    if (target < 0)
        return target == -ENOENT ? 0 : target;
    struct sys_mount_attr attr = {.set = SYS_ATTR_RDONLY};
    int tree = sys_open_tree(target, "", SYS_OPEN_TREE_CLONE | SYS_OPEN_TREE_CLOEXEC |
                                             SYS_AT_EMPTY_PATH | SYS_AT_RECURSIVE);
    int error = tree < 0 || sys_mount_setattr(tree, 0, &attr) || sys_attach(tree, target) ? -errno
                                                                                          : 0;
    if (tree >= 0)
        close(tree);
    close(target);
    return error;
}

int rootfs_hide(const struct container_spec *spec, bool kernel, struct failure *failure)
{
    for (size_t i = 0; i < spec->readonly.count; i++) {
        const char *path = spec->readonly.items[i];
        if (in_kernel_files(path) != kernel)
            continue;
        int error = kernel ? readonly_kernel(path) : readonly_other(path);
        if (error)
            return fail_errno(failure, STAGE_MOUNT, -error, "making %s read-only", path);
    }
    for (size_t i = 0; i < spec->masked.count; i++) {
        const char *path = spec->masked.items[i];
        if (in_kernel_files(path) != kernel)
            continue;
        int error = kernel ? mask_kernel(path) : mask_other(path);
        if (error)
            return fail_errno(failure, STAGE_MOUNT, -error, "masking %s", path);
    }
    return 0;
}

int rootfs_seal(struct failure *failure)
{
    if (mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL))
        return fail_errno(failure, STAGE_MOUNT, errno, "making the root read-only");
    return 0;
}
