/* Which file argv[0] names: execvp's search with the words of Go's os/exec LookPath, as runc uses it
 * inside the container, as the container's user (docs/agent-protocol.md, "Failure of a start"). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"

/* 0, or the errno for which a file can't be executed. */
static int executable(const char *path, bool *missing)
{
    struct stat found;
    *missing = false;
    if (stat(path, &found)) {
        *missing = true;
        return errno;
    }
    if (S_ISDIR(found.st_mode))
        return EISDIR;
    if (!faccessat(AT_FDCWD, path, X_OK, AT_EACCESS))
        return 0;
    return errno == EACCES || !(found.st_mode & 0111) ? EACCES : 0;
}

static int copy_path(const char *directory, size_t length, const char *name,
                     char path[PATH_MOST + 1])
{
    int written = snprintf(path, PATH_MOST + 1, "%.*s%s%s", (int)length, directory,
                           length ? "/" : "./", name);
    return written > PATH_MOST ? -1 : 0;
}

static int as_it_is(const char *name, char path[PATH_MOST + 1], struct failure *failure)
{
    bool missing;
    if (strlen(name) > PATH_MOST)
        return fail(failure, STAGE_EXEC_LOOKUP, ENAMETOOLONG, "exec: file name too long");
    memcpy(path, name, strlen(name) + 1);
    int error = executable(path, &missing);
    if (!error)
        return 0;
    if (missing)
        return fail(failure, STAGE_EXEC_LOOKUP, error, "exec: \"%s\": stat %s: %s", name, name,
                    error_text(error));
    return fail(failure, STAGE_EXEC_LOOKUP, error, "exec: \"%s\": %s", name, error_text(error));
}

static const char *search_path(char **env)
{
    for (; *env; env++)
        if (!strncmp(*env, "PATH=", 5))
            return *env + 5;
    return "";
}

int program_find(const struct process_spec *process, char **env, char path[PATH_MOST + 1],
                 struct failure *failure)
{
    const char *name = process->argv.items[0], *directories = search_path(env);
    bool missing;
    if (strchr(name, '/'))
        return as_it_is(name, path, failure);
    for (const char *at = directories; *name && *directories; at++) {
        size_t length = strcspn(at, ":");
        if (!copy_path(at, length, name, path) && !executable(path, &missing))
            return 0;
        at += length;
        if (!*at)
            break;
    }
    return fail(failure, STAGE_EXEC_LOOKUP, ENOENT,
                "exec: \"%s\": executable file not found in $PATH", name);
}
