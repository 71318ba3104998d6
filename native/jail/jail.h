/* The jail: what the launcher was asked for, and the steps that its files offer.
 *
 * The launcher sets up what is the host's (cgroups, network namespace), clones the jailed process
 * as PID 1 of new namespaces, reports its pid and ends; the jailed process builds its own walls
 * and executes the program. Every failure is one sentence on the report descriptor. */
#ifndef HYPER_JAIL_H
#define HYPER_JAIL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

enum {
    MAX_BINDS = 512,
    MAX_TMPFS = 16,
    MAX_DEVICES = 16,
    MAX_CGROUPS = 8,
    MAX_FDS = 64,
    MAX_LIMITS = 16,
    MAX_ENV = 64
};

struct bind {
    const char *source, *target;
    int read_only, recursive, top_only; /* top_only: mounts below keep their own read_only */
};

struct tmpfs {
    const char *target, *options; /* options as of mount(8): size=...,mode=... */
    int executable;
};

struct kept_fd {
    int target, source;
};

struct limit {
    int resource;
    rlim_t value;
};

struct jail {
    const char *root, *netns, *filter;
    uid_t uid;
    gid_t gid;
    uint64_t caps; /* bits of the capabilities that stay; 0 for every machine */
    int no_aslr, proc, wait, report;
    int alive; /* with wait: a pipe whose other end the launcher holds; else -1 */
    const char *oom_score;
    struct bind binds[MAX_BINDS];
    struct tmpfs tmpfs[MAX_TMPFS];
    const char *devices[MAX_DEVICES];
    const char *cgroups[MAX_CGROUPS];
    struct kept_fd fds[MAX_FDS];
    struct limit limits[MAX_LIMITS];
    char *env[MAX_ENV + 1];
    size_t bind_count, tmpfs_count, device_count, cgroup_count, fd_count, limit_count, env_count;
    char **argv;
};

/* Where a failure is told: the report descriptor. Set once, before anything can fail. */
void report_to(int fd);
/* Tells "error: WHAT OBJECT: strerror" and ends the process. */
_Noreturn void die(const char *what, const char *object);
/* The same without errno. */
_Noreturn void refuse(const char *what, const char *object);

/* options.c: fills the jail from the command line; ends the process on a bad one. */
void parse_options(struct jail *jail, int argc, char **argv);

/* root.c: makes the mount namespace's root what the jail says, read-only. */
void build_root(const struct jail *jail);

/* confine.c: limits, descriptors, identity, capabilities, system call filter; in this order. */
void load_filter(const struct jail *jail);
void open_null(void);
void arrange_fds(const struct jail *jail);
void drop_privileges(const struct jail *jail);
void install_filter(void);

#endif
