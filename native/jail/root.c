/* The jail's root: a read-only bind of a folder, with the named binds, tmpfs and devices in it.
 * pivot_root(2), mount_namespaces(7). The root comes from the kit and belongs to the host's root;
 * targets that a tmpfs covers are made, all others must exist. */
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <linux/mount.h>

static const char *inside(const char *target)
{
    while (*target == '/')
        target++;
    return *target ? target : ".";
}

/* Makes DIR and its parents where they are missing; a read-only file system says no by itself. */
static void make_parents(char *path)
{
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(path, 0755) && errno != EEXIST && errno != EROFS)
            die("mkdir", path);
        *slash = '/';
    }
}

static void make_target(const char *target, int directory)
{
    struct stat status;
    if (!stat(target, &status))
        return;
    char path[4096];
    if (strlen(target) >= sizeof path)
        refuse("path too long:", target);
    strcpy(path, target);
    make_parents(path);
    if (directory ? mkdir(path, 0755) : mknod(path, S_IFREG | 0644, 0))
        die("mount point", target);
}

static void mount_devices(const struct jail *jail)
{
    if (!jail->device_count)
        return;
    if (mount("dev", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k"))
        die("mount", "/dev");
    for (size_t i = 0; i < jail->device_count; i++) {
        struct stat status;
        if (stat(jail->devices[i], &status))
            die("device", jail->devices[i]);
        if (!S_ISCHR(status.st_mode))
            refuse("not a character device:", jail->devices[i]);
        char path[256];
        if (snprintf(path, sizeof path, "%s", inside(jail->devices[i])) >= (int)sizeof path)
            refuse("path too long:", jail->devices[i]);
        make_parents(path);
        if (mknod(path, S_IFCHR | 0666, status.st_rdev) || chmod(path, 0666))
            die("mknod", path);
    }
}

static void mount_tmpfs(const struct tmpfs *tmpfs)
{
    const char *target = inside(tmpfs->target);
    make_target(target, 1);
    unsigned long flags = MS_NOSUID | MS_NODEV | (tmpfs->executable ? 0 : MS_NOEXEC);
    if (mount("tmpfs", target, "tmpfs", flags, tmpfs->options))
        die("mount", tmpfs->target);
}

#define STANDING (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

static void set_attributes(const struct bind *bind, unsigned flags, uint64_t set)
{
    struct mount_attr attributes = {.attr_set = set};
    if (syscall(SYS_mount_setattr, AT_FDCWD, inside(bind->target), flags, &attributes,
                sizeof attributes))
        die("bind attributes of", bind->target);
}

static void mount_bind(const struct bind *bind)
{
    struct stat status;
    if (stat(bind->source, &status))
        die("bind source", bind->source);
    const char *target = inside(bind->target);
    make_target(target, S_ISDIR(status.st_mode));
    if (mount(bind->source, target, NULL, MS_BIND | (bind->recursive ? MS_REC : 0), NULL))
        die("bind", bind->source);
    unsigned flags = bind->recursive ? AT_RECURSIVE : 0;
    if (!bind->top_only) {
        set_attributes(bind, flags, STANDING | (bind->read_only ? MOUNT_ATTR_RDONLY : 0));
        return;
    }
    set_attributes(bind, flags, STANDING);
    set_attributes(bind, 0, MOUNT_ATTR_RDONLY);
}

static void read_only(const char *path, unsigned long flags)
{
    if (mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL))
        die("read-only", path);
}

/* A read-only procfs of the jail's own process namespace: uid 0 without capabilities could write to
 * /proc/sys otherwise (proc(5)). Not subset=pid: virtiofsd reads /proc/sys/fs/nr_open. */
static void mount_proc(void)
{
    make_target("proc", 1);
    unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (mount("proc", "proc", "proc", flags, "hidepid=invisible"))
        die("mount", "/proc");
}

void build_root(const struct jail *jail)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        die("private mounts", "/");
    if (mount(jail->root, jail->root, NULL, MS_BIND, NULL) || chdir(jail->root))
        die("root", jail->root);
    read_only(".", MS_NOSUID | MS_NODEV);
    mount_devices(jail);
    if (jail->proc)
        mount_proc();
    for (size_t i = 0; i < jail->tmpfs_count; i++)
        mount_tmpfs(&jail->tmpfs[i]);
    for (size_t i = 0; i < jail->bind_count; i++)
        mount_bind(&jail->binds[i]);
    if (jail->device_count)
        read_only("dev", MS_NOSUID | MS_NOEXEC);
    if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        die("pivot_root", jail->root);
}
