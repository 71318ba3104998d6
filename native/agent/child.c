/* A child of the agent on its way to become a process of a container: the order of the steps.
 *
 * The order is runc's (libcontainer/standard_init_linux.go, setns_init_linux.go), except that what is
 * mounted before anything of the container can run is masked before volumes, whose content others may
 * be changing at this moment, are mounted. */
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bpf.h"
#include "dns.h"
#include "launch.h"
#include "net.h"
#include "reap.h"
#include "root.h"
#include "sys.h"

#define NAMESPACES                                                                                 \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET)

extern char **environ;

struct child {
    const struct launch *launch;
    const struct container_spec *spec;
    const struct process_spec *process;
    int status;  /* the way to the agent */
    int netlink; /* of the agent's network namespace, -1: no interface to be fetched */
    struct room room;
    struct user user;
    struct failure failure;
};

/* Descriptors */

static int take_stdio(struct child *child)
{
    const int *stdio = child->launch->stdio;
    for (int fd = 0; fd < 3; fd++)
        if (stdio[fd] >= 0 && dup2(stdio[fd], fd) < 0)
            return fail_errno(&child->failure, STAGE_OTHER, errno, "dup2");
    return 0;
}

/* Whatever else the agent has open is not this container's business, and a working directory such
 * as /proc/self/fd/7 must not lead out of it. */
static void drop_descriptors(const struct child *child)
{
    int keep[8] = {0, 1, 2, child->status};
    size_t count = 4;
    if (child->netlink >= 0)
        keep[count++] = child->netlink;
    if (child->room.shm >= 0)
        keep[count++] = child->room.shm;
    child_close_all(keep, count);
}

/* Namespaces */

static int new_namespaces(const struct container_spec *spec)
{
    int joined = 0;
    for (size_t i = 0; i < spec->join_count; i++)
        joined |= spec->joins[i].namespace;
    /* The guest's own network leads to the daemon, and its mounts are the agent's: never shared. */
    return ((spec->namespaces & NAMESPACES) | CLONE_NEWNS | CLONE_NEWNET) & ~joined;
}

static int join(struct child *child)
{
    for (size_t i = 0; i < child->launch->joined_count; i++) {
        const struct joined *joined = &child->launch->joined[i];
        int here = joined->namespaces & ~CLONE_NEWPID; /* that one was joined by the agent */
        if (here && setns(joined->pidfd, here))
            return fail_errno(&child->failure, STAGE_NAMESPACE, errno, "joining namespaces 0x%x",
                              (unsigned)joined->namespaces);
    }
    return 0;
}

/* The shared memory of a shared IPC namespace is its owner's /dev/shm, too. */
static int borrow_shm(struct child *child)
{
    for (size_t i = 0; i < child->launch->joined_count; i++) {
        const struct joined *joined = &child->launch->joined[i];
        if (!(joined->namespaces & CLONE_NEWIPC))
            continue;
        int home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
        if (home < 0 || setns(joined->pidfd, CLONE_NEWNS))
            return fail_errno(&child->failure, STAGE_NAMESPACE, errno, "entering a sibling");
        child->room.shm = sys_open_tree(AT_FDCWD, "/dev/shm",
                                        SYS_OPEN_TREE_CLONE | SYS_OPEN_TREE_CLOEXEC);
        if (setns(home, CLONE_NEWNS))
            return fail_errno(&child->failure, STAGE_NAMESPACE, errno, "leaving a sibling");
    }
    return 0;
}

static int set_names(struct child *child)
{
    const struct container_spec *spec = child->spec;
    if (!(new_namespaces(spec) & CLONE_NEWUTS))
        return 0;
    if (*spec->hostname && sethostname(spec->hostname, strlen(spec->hostname)))
        return fail_errno(&child->failure, STAGE_NAMESPACE, errno, "sethostname");
    if (setdomainname(spec->domainname, strlen(spec->domainname)))
        return fail_errno(&child->failure, STAGE_NAMESPACE, errno, "setdomainname");
    return 0;
}

static int open_network(struct child *child)
{
    const struct container_spec *spec = child->spec;
    bool own = new_namespaces(spec) & CLONE_NEWNET;
    return net_setup(child->netlink, spec->nics, spec->nic_count, own, &child->failure);
}

static int open_dns(struct child *child)
{
    int sockets[2];
    if (!child->spec->dns)
        return 0;
    if (dns_sockets(child->launch->dns_port, sockets, &child->failure))
        return -1;
    int error = report_send(child->status, &(struct report){.kind = REPORT_DNS}, sockets, 2);
    close(sockets[0]);
    close(sockets[1]);
    return error ? fail_errno(&child->failure, STAGE_NETWORK, errno, "passing DNS sockets") : 0;
}

/* Not before the root is mounted: this process obeys already, and opens the disk for that. */
static int limit_devices(struct child *child)
{
    const struct container_spec *spec = child->spec;
    if (spec->privileged)
        return 0;
    int error = bpf_devices(child->launch->cgroup_dir, spec->devices, spec->device_count);
    return error ? fail_errno(&child->failure, STAGE_CGROUP, -error, "limiting devices") : 0;
}

static int separate(struct child *child)
{
    const struct launch *launch = child->launch;
    const struct container_spec *spec = child->spec;
    if (launch->layers && root_mount(spec->id, &spec->root, launch->layers, &child->failure))
        return -1;
    umask(0);
    if (limit_devices(child))
        return -1;
    if (spec->nic_count && (child->netlink = net_open()) < 0)
        return fail_errno(&child->failure, STAGE_NETWORK, errno, "opening a netlink socket");
    if (borrow_shm(child) || join(child))
        return -1;
    drop_descriptors(child);
    if (unshare(new_namespaces(spec) & ~CLONE_NEWPID))
        return fail_errno(&child->failure, STAGE_NAMESPACE, errno, "unshare");
    return open_network(child) || open_dns(child) || set_names(child) ? -1 : 0;
}

static int find_user(struct child *child)
{
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fail_errno(&child->failure, STAGE_USER, errno, "open /");
    int result = user_find(root, child->process, &child->user, &child->failure);
    close(root);
    return result;
}

/* The container's first process */

static int furnish(struct child *child)
{
    const struct container_spec *spec = child->spec;
    struct failure *failure = &child->failure;
    if (room_collect(spec, &child->room, failure) || rootfs_pivot(spec->id, failure) ||
        rootfs_standard(spec, &child->room, failure) || sysctls_set(spec, failure) ||
        rootfs_hide(spec, true, failure) || mounts_attach(spec, &child->room, failure) ||
        rootfs_hide(spec, false, failure))
        return -1;
    if (child->process->tty && terminal_open(child->process, child->status, true, failure))
        return -1;
    return 0;
}

static int first_process(struct child *child)
{
    const struct container_spec *spec = child->spec;
    struct failure *failure = &child->failure;
    if (separate(child) || furnish(child) || find_user(child) ||
        identity_prepare_cwd(child->process, failure))
        return -1;
    return spec->root.read_only ? rootfs_seal(failure) : 0;
}

/* A further process */

static int further_process(struct child *child)
{
    if (join(child))
        return -1;
    drop_descriptors(child);
    umask(0);
    if (child->process->tty &&
        terminal_open(child->process, child->status, false, &child->failure))
        return -1;
    return find_user(child);
}

/* The end of both */

static char **environment(const struct child *child)
{
    const struct texts *env = &child->process->env;
    static char home[PATH_MOST + 8];
    char **made = calloc(env->count + 2, sizeof *made);
    size_t count = 0;
    bool has_home = false;
    for (size_t i = 0; made && i < env->count; i++) {
        if (!strcmp(env->items[i], "HOME="))
            continue;
        has_home |= !strncmp(env->items[i], "HOME=", 5);
        made[count++] = env->items[i];
    }
    if (made && !has_home) {
        snprintf(home, sizeof home, "HOME=%s", child->user.home);
        made[count] = home;
    }
    return made;
}

static int become(struct child *child)
{
    char path[PATH_MOST + 1];
    struct failure *failure = &child->failure;
    const struct process_spec *process = child->process;
    char **env = environment(child);
    if (!env)
        return fail(failure, STAGE_OTHER, ENOMEM, "no memory for the environment");
    if (child->spec->init)
        init_title(process->argv.items);
    if (identity_take(process, &child->user, failure) ||
        program_find(process, env, path, failure))
        return -1;
    if (child->spec->init && init_split(process->tty, failure))
        return -1;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct report ready = {.kind = REPORT_READY,
                           .time_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec};
    if (report_send(child->status, &ready, NULL, 0) || identity_seal(process, failure))
        return -1;
    execve(path, process->argv.items, env);
    return fail(failure, STAGE_EXEC, errno, "exec %s: %s", path, error_text(errno));
}

_Noreturn void child_main(const struct launch *launch, int status)
{
    static struct child child;
    child = (struct child){.launch = launch,
                           .spec = launch->spec,
                           .process = &launch->spec->process,
                           .status = status,
                           .netlink = -1,
                           .room = {-1, -1, -1, NULL}};
    child_signals();
    setsid();
    if (!oom_score_set(child.process, &child.failure) && !take_stdio(&child) &&
        !(launch->exec ? further_process(&child) : first_process(&child)))
        become(&child);
    report_send(status, &(struct report){.kind = REPORT_FAILED, .failure = child.failure}, NULL, 0);
    _exit(1);
}
