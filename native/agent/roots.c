/* What the core asks about roots: descriptors for archives, the share; ROOT_MOUNT and TRIM. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "container.h"
#include "helper.h"
#include "state.h"

enum { MOUNT_MS = 30000, TRIM_MS = 60000 };

static int open_folder(const char *path, int flags)
{
    int fd = open(path, flags | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int container_root_fd(const struct container *container)
{
    char path[CONTAINER_PATH];
    if (!container->root_mounted)
        return -ENOENT;
    if (container->phase == PHASE_RUNNING)
        snprintf(path, sizeof path, "/proc/%d/root", container->pid);
    else
        snprintf(path, sizeof path, "/c/%s/%s", container->id, container->viewed ? "view" : "root");
    /* O_PATH: to open what a container may have mounted there can take as long as it likes. */
    return open_folder(path, O_PATH);
}

int container_upper_fd(const struct container *container)
{
    char path[CONTAINER_PATH];
    snprintf(path, sizeof path, "/c/%s/disk/upper", container->id);
    return open_folder(path, O_RDONLY);
}

int container_layer_fds(const struct container *container, int *fds, size_t most)
{
    char path[32];
    size_t count = container->layers.count < most ? container->layers.count : most;
    for (size_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "/l/%u", container->layers.numbers[i]);
        fds[i] = open_folder(path, O_RDONLY);
        if (fds[i] < 0) {
            int error = fds[i];
            while (i--)
                close(fds[i]);
            return error;
        }
    }
    return (int)count;
}

int share_mount(const char *tag)
{
    struct statx found = {0};
    if (!statx(AT_FDCWD, "/share", 0, STATX_TYPE, &found) &&
        found.stx_attributes & STATX_ATTR_MOUNT_ROOT)
        return 0;
    return mount(tag, "/share", "virtiofs", 0, NULL) ? -errno : 0;
}

/* ROOT_MOUNT */

struct mounting {
    struct container *container;
    struct container_spec spec;
    struct request request;
    struct failure failure;
};

/* The root once more, with volumes and bind mounts in their places as a running container has them.
 * Nothing is mounted on the root itself: it is what is exported, and is to be unmounted. */
static int make_view(const struct container_spec *spec, struct failure *failure)
{
    char root[CONTAINER_PATH], view[CONTAINER_PATH];
    struct room room = {.devices = -1, .shm = -1, .cpu = -1};
    snprintf(root, sizeof root, "/c/%s/root", spec->id);
    snprintf(view, sizeof view, "/c/%s/view", spec->id);
    if (mkdir(view, 0700) || mount(root, view, NULL, MS_BIND, NULL))
        return fail_errno(failure, STAGE_ROOT, errno, "making the view of the root");
    if (room_collect(spec, &room, failure))
        return -1;
    if (chroot(view) || chdir("/"))
        return fail_errno(failure, STAGE_ROOT, errno, "entering the view of the root");
    return mounts_attach(spec, &room, failure);
}

static int mount_work(void *argument, struct writer *answer, struct failure *failure)
{
    (void)answer;
    const struct mounting *mounting = argument;
    const struct container_spec *spec = &mounting->spec;
    if (root_mount(spec->id, &spec->root, &mounting->container->layers, failure))
        return -1;
    return spec->mount_count ? make_view(spec, failure) : 0;
}

static void on_cleared(void *context, int error)
{
    (void)error;
    struct mounting *mounting = context;
    const struct failure *failure = &mounting->failure;
    reply_failure(mounting->request, failure->error, failure->stage, "%s", failure->detail);
    free(mounting);
}

static void on_mounted(void *context, struct writer *answer, const struct failure *failure)
{
    struct mounting *mounting = context;
    struct container *container = mounting->container;
    bool viewed = mounting->spec.mount_count;
    writer_free(answer);
    arena_free(&mounting->spec.arena);
    if (failure) {
        mounting->failure = *failure;
        container_unmount(container, on_cleared, mounting);
        return;
    }
    container->phase = PHASE_ROOT;
    container->root_mounted = true;
    container->viewed = viewed;
    reply(mounting->request, NULL);
    free(mounting);
}

static void begin(struct mounting *mounting, struct request request)
{
    struct container_spec *spec = &mounting->spec;
    struct container *container = container_new(spec->id);
    int error = container ? layers_take(&spec->root, &container->layers) : -ENOMEM;
    mounting->container = container;
    mounting->request = request;
    if (!error) {
        container->phase = PHASE_STARTING;
        error = helper_run(&(struct helper_task){.work = mount_work,
                                                 .argument = mounting,
                                                 .fd = -1,
                                                 .milliseconds = MOUNT_MS,
                                                 .done = on_mounted,
                                                 .context = mounting});
    }
    if (!error)
        return;
    reply_failure(request, -error, STAGE_ROOT, "the root can't be mounted");
    if (container) {
        layers_drop(&container->layers);
        container_free(container);
    }
    arena_free(&spec->arena);
    free(mounting);
}

void handle_root_mount(struct request request, struct reader *payload)
{
    struct mounting *mounting = calloc(1, sizeof *mounting);
    if (!mounting) {
        reply_failure(request, ENOMEM, STAGE_OTHER, "no memory");
        return;
    }
    if (!read_root_mount(payload, &mounting->spec)) {
        free(mounting);
        return;
    }
    if (!container_find(mounting->spec.id)) {
        begin(mounting, request);
        return;
    }
    reply_failure(request, EEXIST, STAGE_ROOT, "the root is mounted already");
    arena_free(&mounting->spec.arena);
    free(mounting);
}

/* TRIM */

static int trim_work(void *argument, struct writer *answer, struct failure *failure)
{
    (void)answer;
    char path[CONTAINER_PATH];
    const struct container *container = argument;
    struct fstrim_range range = {.len = UINT64_MAX};
    snprintf(path, sizeof path, "/c/%s/disk", container->id);
    int fd = open_folder(path, O_RDONLY);
    int error = fd < 0 ? -fd : ioctl(fd, FITRIM, &range) ? errno : 0;
    return error ? fail_errno(failure, STAGE_OTHER, error, "trimming the disk") : 0;
}

void handle_trim(struct request request, struct reader *payload)
{
    char id[ID_MOST + 1];
    if (!read_ref(payload, id))
        return;
    struct container *container = container_for(request, id, false);
    if (!container)
        return;
    helper_reply(request, &(struct helper_task){.work = trim_work,
                                                .argument = container,
                                                .fd = -1,
                                                .milliseconds = TRIM_MS});
}
