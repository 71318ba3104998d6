/* The launcher's command line. It comes from the daemon alone, yet every number is checked. */
#include "jail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static char **cursor;

static char *next(const char *option)
{
    if (!*cursor)
        refuse("a value is missing after", option);
    return *cursor++;
}

static unsigned long long number(const char *option)
{
    const char *text = next(option);
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end || *text == '-')
        refuse("not a number:", text);
    return value;
}

static unsigned bounded(const char *option, unsigned long long largest)
{
    unsigned long long value = number(option);
    if (value > largest)
        refuse("number out of range after", option);
    return (unsigned)value;
}

static void room(size_t count, size_t most, const char *option)
{
    if (count >= most)
        refuse("too many of", option);
}

static void add_bind(struct jail *jail, const char *option)
{
    room(jail->bind_count, MAX_BINDS, option);
    struct bind *bind = &jail->binds[jail->bind_count++];
    bind->source = next(option);
    bind->target = next(option);
    const char *mode = next(option);
    bind->recursive = mode[0] == 'r' && mode[1] == '-';
    if (bind->recursive)
        mode += 2;
    bind->top_only = !strcmp(mode, "ro-top");
    if (strcmp(mode, "ro") && strcmp(mode, "rw") && !bind->top_only)
        refuse("a bind is ro, ro-top or rw, not", mode);
    bind->read_only = *(mode + 1) == 'o';
}

static void add_tmpfs(struct jail *jail, const char *option, int executable)
{
    room(jail->tmpfs_count, MAX_TMPFS, option);
    struct tmpfs *tmpfs = &jail->tmpfs[jail->tmpfs_count++];
    tmpfs->target = next(option);
    tmpfs->options = next(option);
    tmpfs->executable = executable;
}

static void add_fd(struct jail *jail, const char *option)
{
    room(jail->fd_count, MAX_FDS, option);
    struct kept_fd *fd = &jail->fds[jail->fd_count++];
    fd->target = (int)bounded(option, 255);
    fd->source = (int)bounded(option, 1 << 20);
}

static void add_limit(struct jail *jail, const char *option)
{
    room(jail->limit_count, MAX_LIMITS, option);
    struct limit *limit = &jail->limits[jail->limit_count++];
    limit->resource = (int)bounded(option, RLIM_NLIMITS - 1);
    limit->value = number(option);
}

static void one(struct jail *jail, const char *option)
{
    if (!strcmp(option, "--root")) {
        jail->root = next(option);
    } else if (!strcmp(option, "--netns")) {
        jail->netns = next(option);
    } else if (!strcmp(option, "--filter")) {
        jail->filter = next(option);
    } else if (!strcmp(option, "--uid")) {
        jail->uid = bounded(option, UINT32_MAX - 1);
    } else if (!strcmp(option, "--gid")) {
        jail->gid = bounded(option, UINT32_MAX - 1);
    } else if (!strcmp(option, "--caps")) {
        jail->caps = number(option);
    } else if (!strcmp(option, "--report")) {
        jail->report = (int)bounded(option, 1 << 20);
        report_to(jail->report);
    } else if (!strcmp(option, "--no-aslr")) {
        jail->no_aslr = 1;
    } else if (!strcmp(option, "--proc")) {
        jail->proc = 1;
    } else if (!strcmp(option, "--wait")) {
        jail->wait = 1;
    } else if (!strcmp(option, "--oom-score")) {
        jail->oom_score = next(option);
    } else if (!strcmp(option, "--bind")) {
        add_bind(jail, option);
    } else if (!strcmp(option, "--tmpfs")) {
        add_tmpfs(jail, option, 0);
    } else if (!strcmp(option, "--exec-tmpfs")) {
        add_tmpfs(jail, option, 1);
    } else if (!strcmp(option, "--device")) {
        room(jail->device_count, MAX_DEVICES, option);
        jail->devices[jail->device_count++] = next(option);
    } else if (!strcmp(option, "--cgroup")) {
        room(jail->cgroup_count, MAX_CGROUPS, option);
        jail->cgroups[jail->cgroup_count++] = next(option);
    } else if (!strcmp(option, "--fd")) {
        add_fd(jail, option);
    } else if (!strcmp(option, "--limit")) {
        add_limit(jail, option);
    } else if (!strcmp(option, "--env")) {
        room(jail->env_count, MAX_ENV, option);
        jail->env[jail->env_count++] = next(option);
    } else {
        refuse("unknown option", option);
    }
}

void parse_options(struct jail *jail, int argc, char **argv)
{
    (void)argc;
    cursor = argv + (*argv ? 1 : 0);
    while (*cursor && strcmp(*cursor, "--"))
        one(jail, *cursor++);
    if (!*cursor || !cursor[1])
        refuse("no program to run after", "--");
    jail->argv = cursor + 1;
    if (!jail->root)
        refuse("missing option", "--root");
    if (!jail->uid && !jail->caps)
        refuse("a jail without a uid of its own needs", "--caps");
}
