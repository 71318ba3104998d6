/* Paths of a container's root, walked by a process whose root directory that already is: links and
 * ".." stay inside by themselves; magic links of /proc, which would not, are never followed. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "sys.h"

enum { LINKS_MOST = 40 };

struct walk {
    int at;                /* the directory reached */
    char rest[PATH_MAX];   /* what is still to be walked */
    int links;
    bool directory, *made; /* of the last component */
};

static int open_path(int dir, const char *name, uint64_t flags)
{
    int fd = sys_openat2(dir, name, O_PATH | O_CLOEXEC | flags, 0, RESOLVE_NO_MAGICLINKS);
    return fd < 0 ? -errno : fd;
}

static int make(struct walk *walk, const char *name, bool last)
{
    int error;
    if (!last || walk->directory) {
        error = mkdirat(walk->at, name, 0755) ? -errno : 0;
    } else {
        int fd = openat(walk->at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0755);
        error = fd < 0 ? -errno : close(fd);
    }
    if (error)
        return error;
    *walk->made = last;
    return open_path(walk->at, name, O_NOFOLLOW);
}

/* Puts a link's text before what is still to be walked. */
static int follow(struct walk *walk, int link)
{
    char text[PATH_MAX], rest[PATH_MAX];
    ssize_t length = readlinkat(link, "", text, sizeof text - 1);
    if (length < 0)
        return -errno;
    text[length] = 0;
    if (++walk->links > LINKS_MOST)
        return -ELOOP;
    if (snprintf(rest, sizeof rest, "%s/%s", text, walk->rest) >= (int)sizeof rest)
        return -ENAMETOOLONG;
    memcpy(walk->rest, rest, sizeof rest);
    if (*text != '/')
        return 0;
    int top = open_path(AT_FDCWD, "/", O_DIRECTORY);
    if (top < 0)
        return top;
    close(walk->at);
    walk->at = top;
    return 0;
}

/* Splits the first name off the rest. Empty: nothing is left. */
static void next_name(struct walk *walk, char name[NAME_MAX + 1])
{
    const char *from = walk->rest + strspn(walk->rest, "/");
    size_t length = strcspn(from, "/");
    snprintf(name, NAME_MAX + 1, "%.*s", (int)length, from);
    memmove(walk->rest, from + length, strlen(from + length) + 1);
}

static int step(struct walk *walk, const char *name)
{
    bool last = !walk->rest[strspn(walk->rest, "/")];
    int fd = open_path(walk->at, name, O_NOFOLLOW);
    if (fd == -ENOENT)
        fd = make(walk, name, last);
    if (fd < 0)
        return fd;
    struct stat found;
    int error = fstat(fd, &found) ? -errno : 0;
    if (!error && S_ISLNK(found.st_mode)) {
        error = follow(walk, fd);
        close(fd);
        return error;
    }
    if (error) {
        close(fd);
        return error;
    }
    close(walk->at);
    walk->at = fd;
    return 0;
}

static int walk_and_make(const char *path, bool directory, bool *made)
{
    struct walk walk = {.directory = directory, .made = made};
    char name[NAME_MAX + 1];
    if (snprintf(walk.rest, sizeof walk.rest, "%s", path) >= (int)sizeof walk.rest)
        return -ENAMETOOLONG;
    walk.at = open_path(AT_FDCWD, "/", O_DIRECTORY);
    int error = walk.at < 0 ? walk.at : 0;
    while (!error) {
        next_name(&walk, name);
        if (!*name)
            return walk.at;
        error = step(&walk, name);
    }
    if (walk.at >= 0)
        close(walk.at);
    return error;
}

int target_open(const char *path, bool directory, bool *made)
{
    *made = false;
    if (*path != '/')
        return -EINVAL;
    int fd = open_path(AT_FDCWD, path, 0);
    return fd == -ENOENT ? walk_and_make(path, directory, made) : fd;
}
