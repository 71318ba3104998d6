/* Device nodes of a container's /dev: those of the OCI runtime specification (config-linux.md,
 * "Default Devices"), those asked for, and for a privileged container all of the guest's. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "child.h"
#include "guest.h"

enum { NODES_MOST = 4096, DEPTH_MOST = 8 };

/* Devices whose drivers are modules: only who asks for them waits for their loading. */
static const struct {
    char type;
    unsigned major;
    int minor; /* -1: any */
    const char *list;
} DRIVERS[] = {
    {'c', 10, 200, "tun.list"},
    {'c', 10, 229, "fuse.list"},
    {'c', 10, 237, "loop.list"},
    {'b', 7, -1, "loop.list"},
};

void devices_load(const struct container_spec *spec)
{
    for (size_t i = 0; i < sizeof DRIVERS / sizeof *DRIVERS; i++) {
        bool wanted = spec->privileged;
        for (size_t j = 0; j < spec->device_count && !wanted; j++) {
            const struct device_spec *device = &spec->devices[j];
            wanted = device->type == DRIVERS[i].type && device->major == DRIVERS[i].major &&
                     (DRIVERS[i].minor < 0 || device->minor == (unsigned)DRIVERS[i].minor);
        }
        if (wanted)
            modules_load(DRIVERS[i].list);
    }
}

static int make_standard(struct failure *failure)
{
    static const struct {
        const char *path;
        unsigned major, minor;
    } nodes[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
                 {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};
    static const char *const links[][2] = {
        {"/proc/self/fd", "/dev/fd"},         {"/proc/self/fd/0", "/dev/stdin"},
        {"/proc/self/fd/1", "/dev/stdout"},   {"/proc/self/fd/2", "/dev/stderr"},
        {"pts/ptmx", "/dev/ptmx"},
    };
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
        if (mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)))
            return fail_errno(failure, STAGE_DEVICE, errno, "making %s", nodes[i].path);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]))
            return fail_errno(failure, STAGE_DEVICE, errno, "linking %s", links[i][1]);
    if (!access("/proc/kcore", F_OK) && symlink("/proc/kcore", "/dev/core"))
        return fail_errno(failure, STAGE_DEVICE, errno, "linking /dev/core");
    return 0;
}

static int make_asked(const struct device_spec *device, struct failure *failure)
{
    bool made;
    char folder[PATH_MOST + 1];
    const char *name = strrchr(device->path, '/');
    if (!name || !name[1] || !device->type)
        return fail(failure, STAGE_DEVICE, EINVAL, "invalid device path \"%s\"", device->path);
    snprintf(folder, sizeof folder, "%.*s/", (int)(name - device->path), device->path);
    int dir = target_open(folder, true, &made);
    if (dir < 0)
        return fail_errno(failure, STAGE_DEVICE, -dir, "making %s", folder);
    mode_t mode = (device->mode ? device->mode : 0666) | (device->type == 'b' ? S_IFBLK : S_IFCHR);
    dev_t number = makedev(device->major, device->minor);
    name++;
    int error = mknodat(dir, name, mode, number) ? errno : 0;
    struct stat found;
    if (error == EEXIST && !fstatat(dir, name, &found, AT_SYMLINK_NOFOLLOW) &&
        (found.st_mode & S_IFMT) == (mode & S_IFMT) && found.st_rdev == number)
        error = 0;
    if (!error && (device->uid || device->gid))
        error = fchownat(dir, name, device->uid, device->gid, AT_SYMLINK_NOFOLLOW) ? errno : 0;
    close(dir);
    return error ? fail_errno(failure, STAGE_DEVICE, error, "making %s", device->path) : 0;
}

/* Names in the guest's /dev that are a container's own. */
static bool own(const char *name)
{
    static const char *const names[] = {".",  "..",    "pts", "shm",     "mqueue", "console",
                                        "fd", "stdin", "stdout", "stderr", "core",   "ptmx"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

static void copy_nodes(int from, int to, int depth, int *left);

static void copy_folder(int from, int to, const char *name, int depth, int *left)
{
    int source = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    mkdirat(to, name, 0755);
    int target = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (source >= 0 && target >= 0)
        copy_nodes(source, target, depth + 1, left);
    else if (source >= 0)
        close(source);
    if (target >= 0)
        close(target);
}

/* Best effort, as with Docker: a node that can't be made is one device less. Closes `from`. */
static void copy_nodes(int from, int to, int depth, int *left)
{
    DIR *list = fdopendir(from);
    struct dirent *entry;
    struct stat found;
    while (list && (entry = readdir(list)) && --*left > 0) {
        const char *name = entry->d_name;
        if (own(name) || fstatat(from, name, &found, AT_SYMLINK_NOFOLLOW))
            continue;
        if (S_ISDIR(found.st_mode) && depth < DEPTH_MOST)
            copy_folder(from, to, name, depth, left);
        else if ((S_ISCHR(found.st_mode) || S_ISBLK(found.st_mode)) &&
                 !mknodat(to, name, found.st_mode, found.st_rdev) && (found.st_uid || found.st_gid))
            (void)!fchownat(to, name, found.st_uid, found.st_gid, AT_SYMLINK_NOFOLLOW);
    }
    if (list)
        closedir(list);
    else
        close(from);
}

int devices_make(const struct container_spec *spec, int guest_devices, struct failure *failure)
{
    int left = NODES_MOST;
    if (make_standard(failure))
        return -1;
    int dev = guest_devices < 0 ? -1 : open("/dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dev >= 0) {
        copy_nodes(guest_devices, dev, 0, &left);
        close(dev);
    }
    for (size_t i = 0; i < spec->device_count; i++)
        if (make_asked(&spec->devices[i], failure))
            return -1;
    return 0;
}
