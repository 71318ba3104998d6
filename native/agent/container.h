/* Containers of this guest: roots, namespaces, cgroups, interfaces. Requests about them are in
 * request.h; this is what the core of the agent asks. */
#ifndef HYPER_CONTAINER_H
#define HYPER_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct container;

/* Once at boot, after /proc, /sys, /dev and tmpfs /c and /l are mounted: cgroup2 with its
 * controllers on /sys/fs/cgroup, loopback, ... 0 or -errno. */
int containers_init(void);
struct container *container_find(const char *id);
/* Calls fn for each container whose root is mounted. */
void container_each(void (*fn)(void *context, const char *id), void *context);
/* Descriptor (O_PATH, close-on-exec, the caller closes it) of the mounted root as the container sees it:
 * of a running container /proc/PID/root with its volumes, else the overlay. -errno. */
int container_root_fd(const struct container *container);
/* The upper directory and the layers (uppermost first) of its overlay, as descriptors; the caller
 * closes them. Returns the number of layers (at most `most`) or -errno. */
int container_upper_fd(const struct container *container);
int container_layer_fds(const struct container *container, int *fds, size_t most);
/* The first process has ended: kill what is left of the container, and call done(context) when its
 * cgroup is empty (at once, or later from the loop; within 10 s in any case). */
void container_ended(struct container *container, void (*done)(void *context), void *context);
/* Whether the kernel killed something in it for its memory limit since its start. */
bool container_oom(const struct container *container);
/* Names of the share: SETUP says which virtio-fs tag is mounted at /share. 0 or -errno. */
int share_mount(const char *tag);
/* Unmounts every container's root and disk, for POWEROFF. */
void containers_unmount_all(void);

#endif
