/* Kernel parameters of the container's own namespaces. Which ones there are: runc's
 * libcontainer/configs/validate (isolated IPC and UTS names, and all of net). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "child.h"
#include "fileio.h"

static bool begins(const char *name, const char *with)
{
    return !strncmp(name, with, strlen(with));
}

static bool own_namespace(const char *name)
{
    static const char *const names[] = {
        "kernel.msgmax", "kernel.msgmnb",     "kernel.msgmni", "kernel.sem",
        "kernel.shmall", "kernel.shmmax",     "kernel.shmmni", "kernel.shm_rmid_forced",
        "kernel.hostname", "kernel.domainname",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return true;
    return begins(name, "net.") || begins(name, "fs.mqueue.");
}

static int set(const struct sysctl_spec *sysctl, struct failure *failure)
{
    char path[320];
    if (!own_namespace(sysctl->name) || strchr(sysctl->name, '/') || strstr(sysctl->name, ".."))
        return fail(failure, STAGE_SYSCTL, EINVAL,
                    "sysctl \"%s\" is not in a separate kernel namespace", sysctl->name);
    int length = snprintf(path, sizeof path, "/proc/sys/%s", sysctl->name);
    for (int i = 0; i < length; i++)
        if (path[i] == '.')
            path[i] = '/';
    int error = write_file(AT_FDCWD, path, sysctl->value);
    return error ? fail_errno(failure, STAGE_SYSCTL, -error, "open %s", path) : 0;
}

int sysctls_set(const struct container_spec *spec, struct failure *failure)
{
    for (size_t i = 0; i < spec->sysctl_count; i++)
        if (set(&spec->sysctls[i], failure))
            return -1;
    return 0;
}
