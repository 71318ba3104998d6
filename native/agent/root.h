/* Roots of containers: EROFS layers at /l/N, shared by all, under one overlay at /c/ID/root whose
 * upper is the ext4 disk at /c/ID/disk (docs/agent-protocol.md, "Guest layout"). */
#ifndef HYPER_ROOT_H
#define HYPER_ROOT_H

#include "fail.h"
#include "spec.h"

/* The numbers N of a root's layers, uppermost first. */
struct layers {
    unsigned numbers[LAYERS_MOST];
    size_t count;
};

/* In the agent: gives each layer its number, the same to all who use it. 0 or -errno. */
int layers_take(const struct root_spec *root, struct layers *layers);
/* In the agent: gives the numbers back. Leaves in *layers those that nobody uses any more. */
void layers_drop(struct layers *layers);

/* In a child with the agent's mount namespace: mounts what is not mounted yet. 0 or -1. After a
 * failure root_unmount takes away what there is. Blocks. */
int root_mount(const char *id, const struct root_spec *root, const struct layers *layers,
               struct failure *failure);
/* Unmounts root and disk, and the layers in *unused; removes the container's folder. Blocks until
 * the disk is written. 0 or -errno, if something is still mounted. */
int root_unmount(const char *id, const struct layers *unused);

#endif
