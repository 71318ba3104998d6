/* The archive code from the command line, for tests against other programs:
 * archive_tool stat ROOT PATH | get ROOT PATH | put ROOT PATH FLAGS | export ROOT |
 * diff UPPER LOWER... (SINCE in the environment: ns) | changes UPPER LOWER...
 * A failure prints "errno NUMBER: DETAIL" on stderr and gives status 1. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "archive.h"

static char detail[ARCHIVE_DETAIL];

static int root_of(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        perror(path);
        exit(2);
    }
    return fd;
}

static int print_change(void *context, const char *path, enum archive_change_kind kind)
{
    (void)context;
    printf("%c %s\n", "CAD"[kind], path);
    return 0;
}

static int changes(bool diff, int count, char **directories)
{
    int lowers[128];
    for (int i = 1; i < count && i <= 128; i++)
        lowers[i - 1] = root_of(directories[i]);
    int upper = root_of(directories[0]);
    int64_t since = getenv("SINCE") ? atoll(getenv("SINCE")) : 0;
    size_t below = (size_t)(count - 1);
    return diff ? archive_diff(upper, lowers, below, since, 1, detail)
                : archive_changes(upper, lowers, below, print_change, NULL, detail);
}

static int show(int root, const char *path)
{
    struct archive_stat found;
    int error = archive_stat(root, path, &found, detail);
    if (!error)
        printf("%s\n%llu\n%o\n%lld\n%s\n", found.name, (unsigned long long)found.size, found.mode,
               (long long)found.mtime_ns, found.link_target);
    return error;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    const char *verb = argv[1];
    int root = root_of(argv[2]), error = 2;
    if (!strcmp(verb, "stat") && argc == 4)
        error = show(root, argv[3]);
    else if (!strcmp(verb, "get") && argc == 4)
        error = archive_get(root, argv[3], 1, detail);
    else if (!strcmp(verb, "put") && argc == 5)
        error = archive_put(root, argv[3], 0, (unsigned)atoi(argv[4]), detail);
    else if (!strcmp(verb, "export"))
        error = archive_export(root, 1, detail);
    else if (!strcmp(verb, "diff") || !strcmp(verb, "changes"))
        error = changes(!strcmp(verb, "diff"), argc - 2, argv + 2);
    if (error < 0)
        fprintf(stderr, "errno %d: %s\n", -error, detail);
    return error ? 1 : 0;
}
