/* Who a process is: limits, seccomp filter, capabilities, user, working directory. The order is
 * runc's (libcontainer/init_linux.go, finalizeNamespace): each step while it is still allowed. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "child.h"
#include "fileio.h"
#include "sys.h"

enum { CAPABILITIES = 64, USUAL_UMASK = 0022 };

int oom_score_set(const struct process_spec *process, struct failure *failure)
{
    char text[16];
    int64_t inherited = 0;
    if (read_file(AT_FDCWD, "/proc/self/oom_score_adj", text, sizeof text) > 0)
        sscanf(text, "%lld", (long long *)&inherited);
    if (process->oom_score_adj == inherited)
        return 0;
    snprintf(text, sizeof text, "%d", process->oom_score_adj);
    int error = write_file(AT_FDCWD, "/proc/self/oom_score_adj", text);
    return error ? fail_errno(failure, STAGE_OTHER, -error, "setting oom_score_adj") : 0;
}

static int set_rlimits(const struct process_spec *process, struct failure *failure)
{
    for (size_t i = 0; i < process->rlimit_count; i++) {
        const struct rlimit_spec *spec = &process->rlimits[i];
        struct rlimit limit = {
            .rlim_cur = spec->soft < 0 ? RLIM_INFINITY : (rlim_t)spec->soft,
            .rlim_max = spec->hard < 0 ? RLIM_INFINITY : (rlim_t)spec->hard,
        };
        if (setrlimit((unsigned)spec->resource, &limit))
            return fail_errno(failure, STAGE_RLIMIT, errno, "error setting rlimit type %d",
                              spec->resource);
    }
    return 0;
}

static int load_filter(const struct process_spec *process, struct failure *failure)
{
    if (!process->seccomp_count)
        return 0;
    struct sock_fprog program = {
        .len = (unsigned short)process->seccomp_count,
        .filter = (struct sock_filter *)(uintptr_t)process->seccomp,
    };
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        return fail_errno(failure, STAGE_SECCOMP, errno, "unable to init seccomp");
    return 0;
}

/* Capabilities (capabilities(7)) */

static int set_bounding(const struct process_spec *process, struct failure *failure)
{
    for (unsigned cap = 0; cap < CAPABILITIES; cap++) {
        if (process->bounding >> cap & 1)
            continue;
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)) {
            if (errno == EINVAL)
                break; /* the kernel knows no more */
            return fail_errno(failure, STAGE_OTHER, errno, "dropping capability %u", cap);
        }
    }
    return 0;
}

static int set_ambient(const struct process_spec *process, struct failure *failure)
{
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        return fail_errno(failure, STAGE_OTHER, errno, "clearing ambient capabilities");
    for (unsigned cap = 0; cap < CAPABILITIES; cap++)
        if (process->ambient >> cap & 1 &&
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0))
            return fail_errno(failure, STAGE_OTHER, errno, "raising ambient capability %u", cap);
    return 0;
}

static int set_capabilities(const struct process_spec *process, struct failure *failure)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    for (int i = 0; i < 2; i++)
        data[i] = (struct __user_cap_data_struct){
            .effective = (uint32_t)(process->effective >> 32 * i),
            .permitted = (uint32_t)(process->permitted >> 32 * i),
            .inheritable = (uint32_t)(process->inheritable >> 32 * i),
        };
    if (syscall(SYS_capset, &header, data))
        return fail_errno(failure, STAGE_OTHER, errno, "unable to apply caps");
    return set_ambient(process, failure);
}

/* User */

/* So that a process without privileges can open /dev/stdout; /dev/null stays everybody's. */
static void own_stdio(const struct user *user)
{
    for (int fd = 0; user->uid && fd < 3; fd++) {
        struct stat found;
        if (!fstat(fd, &found) && !(S_ISCHR(found.st_mode) && found.st_rdev == makedev(1, 3)))
            (void)!fchown(fd, user->uid, (gid_t)-1);
    }
}

static int set_user(const struct user *user, struct failure *failure)
{
    own_stdio(user);
    /* The raw system calls: the library's would look for threads to tell. */
    if (syscall(SYS_setgroups, user->gid_count, user->gids) ||
        syscall(SYS_setresgid, user->gid, user->gid, user->gid) ||
        syscall(SYS_setresuid, user->uid, user->uid, user->uid))
        return fail_errno(failure, STAGE_USER, errno, "becoming user %u", user->uid);
    return 0;
}

/* Working directory */

static const char *cwd_of(const struct process_spec *process)
{
    return *process->cwd ? process->cwd : "/";
}

int identity_prepare_cwd(const struct process_spec *process, struct failure *failure)
{
    bool made;
    const char *cwd = cwd_of(process);
    if (*cwd != '/')
        return fail(failure, STAGE_CWD, EINVAL, "Cwd must be an absolute path: %s", cwd);
    int fd = target_open(cwd, true, &made);
    if (fd < 0)
        return fail_errno(failure, STAGE_CWD, -fd, "mkdir %s", cwd);
    close(fd);
    return 0;
}

static int enter_cwd(const struct process_spec *process, struct failure *failure)
{
    char here[PATH_MOST + 1];
    const char *cwd = cwd_of(process);
    if (chdir(cwd))
        return fail_errno(failure, STAGE_CWD, errno,
                          "chdir to cwd (\"%s\") set in config.json failed", cwd);
    /* A magic link of /proc could lead to a folder that is not in this root. */
    if (syscall(SYS_getcwd, here, sizeof here) < 0 || *here != '/')
        return fail(failure, STAGE_CWD, ENOENT,
                    "current working directory is outside of container mount namespace root");
    return 0;
}

/* As root first, then, where that was forbidden, once more as the user himself. */
static int become(const struct process_spec *process, const struct user *user,
                  struct failure *failure)
{
    bool entered = !enter_cwd(process, failure);
    if (!entered && failure->error != EACCES)
        return -1;
    if (user->uid && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
        return fail_errno(failure, STAGE_OTHER, errno, "keeping capabilities");
    if (set_user(user, failure))
        return -1;
    if (!entered && enter_cwd(process, failure))
        return -1;
    if (user->uid && prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0))
        return fail_errno(failure, STAGE_OTHER, errno, "keeping capabilities");
    return set_capabilities(process, failure);
}

int identity_take(const struct process_spec *process, const struct user *user,
                  struct failure *failure)
{
    /* A session keyring of its own: else keys of the guest's first user would be shared. */
    syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
    if (set_rlimits(process, failure))
        return -1;
    /* Without no_new_privs a filter takes CAP_SYS_ADMIN: as late as that is there. */
    if (!process->no_new_privs && load_filter(process, failure))
        return -1;
    if (set_bounding(process, failure) || become(process, user, failure))
        return -1;
    umask((mode_t)(process->umask ? process->umask - 1 : USUAL_UMASK));
    return 0;
}

int identity_seal(const struct process_spec *process, struct failure *failure)
{
    if (!process->no_new_privs)
        return 0;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return fail_errno(failure, STAGE_SECCOMP, errno, "setting no_new_privs");
    return load_filter(process, failure);
}
