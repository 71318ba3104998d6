/* What the daemon says about containers and processes (messages.py), read into structures: every
 * count and length is bounded here, text is NUL-terminated, absent text is "". */
#ifndef HYPER_SPEC_H
#define HYPER_SPEC_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "arena.h"
#include "codec.h"
#include "messages.h"

enum {
    ID_MOST = 64, /* bytes of a container's id */
    LAYERS_MOST = 128,
    PATH_MOST = 4095,
    NICS_MOST = 16,
};

struct texts {
    char **items; /* NULL-terminated */
    size_t count;
};

struct source_spec {
    int kind; /* enum hyper_source_kind, 0: there is none */
    char *path;
};

struct root_spec {
    struct source_spec *layers; /* uppermost first */
    size_t layer_count;
    struct source_spec disk;
    bool read_only;
};

struct mount_spec {
    int kind; /* enum hyper_mount_kind */
    char *target, *source, *data;
    unsigned long flags;
    const uint8_t *content;
    size_t content_length;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    bool copy_up;
};

struct join_spec {
    int namespace; /* one CLONE_NEW* bit */
    char *container;
};

/* 0: leave as it is, -1: no limit. */
struct limits_spec {
    int64_t memory_max, memory_low, swap_max, pids_max, cpu_weight, cpu_quota_us, cpu_period_us;
    bool oom_group;
    bool cpu_by_host; /* cpu_quota_us and cpu_period_us are the host's to keep: only shown */
};

struct sysctl_spec {
    char *name, *value;
};

struct device_spec {
    char *path;
    char type; /* 'c' or 'b' */
    unsigned major, minor;
    mode_t mode;
    uid_t uid;
    gid_t gid;
};

struct route_spec {
    char *destination, *gateway;
};

struct nic_spec {
    char *mac, *name, *gateway4, *gateway6;
    unsigned mtu;
    struct texts addresses;
    struct route_spec *routes;
    size_t route_count;
};

struct rlimit_spec {
    int resource;
    int64_t soft, hard; /* -1: infinity */
};

struct process_spec {
    uint32_t handle, stdin_id, stdout_id, stderr_id;
    struct texts argv, env, groups;
    char *cwd, *user;
    bool tty, no_new_privs;
    unsigned short rows, columns;
    uint64_t bounding, effective, permitted, inheritable, ambient;
    const struct sock_filter *seccomp;
    size_t seccomp_count;
    struct rlimit_spec *rlimits;
    size_t rlimit_count;
    int umask; /* plus one, 0: the usual */
    int oom_score_adj;
};

struct container_spec {
    struct arena arena;
    char *id, *hostname, *domainname;
    struct root_spec root;
    struct mount_spec *mounts;
    struct join_spec *joins;
    struct sysctl_spec *sysctls;
    struct device_spec *devices;
    struct nic_spec *nics;
    size_t mount_count, join_count, sysctl_count, device_count, nic_count;
    struct texts masked, readonly;
    int namespaces;
    struct limits_spec limits;
    struct process_spec process;
    bool init, privileged, dns;
    int64_t shm_size;
};

/* Each reads a whole message. False: it was malformed and payload->bad is set, or there was no
 * memory, and nothing is kept. When done with what was read, arena_free. */
bool read_container(struct reader *payload, struct container_spec *spec);
bool read_root_mount(struct reader *payload, struct container_spec *spec); /* id and root only */
bool read_exec(struct reader *payload, struct container_spec *spec);       /* id and process only */
bool read_update(struct reader *payload, struct container_spec *spec);     /* id and limits only */
bool read_nic_change(struct reader *payload, struct container_spec *spec); /* id and one nic */
/* A ContainerRef, into text of ID_MOST + 1 bytes. */
bool read_ref(struct reader *payload, char id[ID_MOST + 1]);

/* For other messages: text and bytes that live as long as the arena. */
char *take_text(struct reader *reader, const struct field *field, struct arena *arena, size_t most);
const uint8_t *take_bytes(struct reader *reader, const struct field *field, struct arena *arena);
/* Whether text may name a container: a path of the guest is made from it. */
bool id_good(const char *id);

#endif
