/* Steps of a child that becomes a process of a container, one file per concern. All run in the child
 * alone, may block, and return 0 or -1 with *failure unless they say otherwise. */
#ifndef HYPER_CHILD_H
#define HYPER_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

#include "fail.h"
#include "spec.h"

/* rootfs.c */
struct room {
    int devices; /* the guest's own /dev, for privileged containers; -1: none */
    int shm;     /* a detached mount of a sibling's /dev/shm, -1: an own one */
    int cpu;     /* a detached mount of the cpu.max that is shown, -1: none */
    int *trees;  /* detached mounts, one per mount of the spec; -1 where it is a tmpfs */
};
/* Before the new mount namespace is left for the new root: opens what lies outside. */
int room_collect(const struct container_spec *spec, struct room *room, struct failure *failure);
/* Makes /c/ID/root the root of this mount namespace, and the guest's unreachable. */
int rootfs_pivot(const char *id, struct failure *failure);
/* /proc, /dev, /sys and what belongs to them. */
int rootfs_standard(const struct container_spec *spec, const struct room *room,
                    struct failure *failure);
/* Masked and read-only paths; `kernel` says which: those in /proc and /sys, or the others. */
int rootfs_hide(const struct container_spec *spec, bool kernel, struct failure *failure);
int rootfs_seal(struct failure *failure); /* the root becomes read-only */

/* devices.c */
/* Loads the drivers of the devices that a container is to have; in the guest's own root. */
void devices_load(const struct container_spec *spec);
int devices_make(const struct container_spec *spec, int guest_devices, struct failure *failure);

/* mounts.c */
/* The detached mount of one mount of the spec, from outside the root; -1 for tmpfs. `number` counts
 * the private files, and is the place among all mounts for a socket. */
int mount_tree(const char *id, const struct mount_spec *mount, size_t number, int *tree,
               struct failure *failure);
int mounts_attach(const struct container_spec *spec, const struct room *room,
                  struct failure *failure);
/* Whether the spec itself mounts something exactly there. */
bool mounts_cover(const struct container_spec *spec, const char *target);

/* target.c */
/* Opens (O_PATH) what a path means in the root, without magic links; what is missing is made:
 * folders, and last a folder or an empty file. *made says whether the last was. -errno. */
int target_open(const char *path, bool directory, bool *made);

/* copyup.c: fills the empty directory `to` from `from` as docker fills a new volume, with owners,
 * modes, times, extended attributes, hard links. 0 or -errno. */
int copy_up(int from, int to);

/* sysctl.c */
int sysctls_set(const struct container_spec *spec, struct failure *failure);

/* terminal.c: a new terminal of the container's own devpts becomes the controlling one and
 * descriptors 0 to 2; its master goes to the agent. `console`: it is /dev/console too. */
int terminal_open(const struct process_spec *process, int status, bool console,
                  struct failure *failure);

/* users.c */
enum { GIDS_MOST = 1024 };
struct user {
    uid_t uid;
    gid_t gid;
    gid_t gids[GIDS_MOST];
    size_t gid_count;
    char home[PATH_MOST + 1];
};
/* Looks the process's user up in etc/passwd and etc/group beneath a folder, as moby/sys/user does. */
int user_find(int root, const struct process_spec *process, struct user *user,
              struct failure *failure);
/* The name of a uid in that /etc/passwd, or its digits. `root` is a directory, ROOM bytes of text. */
struct user_names;
struct user_names *user_names_read(int root);
void user_name(const struct user_names *names, uid_t uid, char *text, size_t room);

/* identity.c: limits, seccomp, capabilities, user, working directory, in the order that each still
 * may. */
int identity_take(const struct process_spec *process, const struct user *user,
                  struct failure *failure);
int identity_prepare_cwd(const struct process_spec *process, struct failure *failure);
/* While the guest's own /proc is still there. */
int oom_score_set(const struct process_spec *process, struct failure *failure);
/* The last step before execve. */
int identity_seal(const struct process_spec *process, struct failure *failure);

/* lookup.c: what argv[0] means, as Go's exec.LookPath. */
int program_find(const struct process_spec *process, char **env, char path[PATH_MOST + 1],
                 struct failure *failure);

/* init.c: this process becomes the container's PID 1 that reaps and forwards signals; returns only
 * in the new child, which is to execute the program, and in neither when it fails (-1). */
int init_split(bool tty, struct failure *failure);
/* Before, while this may still be done: this process is seen to be docker-init with its command. */
void init_title(char *const *argv);

#endif
