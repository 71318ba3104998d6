/* Paths and directories for the archive code: everything is opened beneath a descriptor, links stay
 * in the root, directories are read sorted. openat2(2), statx(2), getdents64(2). */
#ifndef HYPER_ARCHIVE_FILE_H
#define HYPER_ARCHIVE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "archive.h"

enum {
    ARCHIVE_PATH = 4096,        /* a path with its NUL: the kernel's PATH_MAX */
    ARCHIVE_XATTRS = 64 * 1024, /* names and values of one file's extended attributes */
};

/* Writes one line into detail and returns -error. */
__attribute__((format(printf, 3, 4))) int archive_fail(char *detail, int error, const char *format,
                                                       ...);

/* What an errno means, with a small letter as Docker's sentences have it. */
const char *archive_reason(int error);

/* Cleans a path by its text alone: absolute, no "." nor "..", no doubled or final slash. The first
 * ".." that has nothing to remove is dropped, as below "/". 0 or -ENAMETOOLONG. */
int archive_clean(const char *path, char out[ARCHIVE_PATH]);

/* Whether a path's text leads above where it starts: "../x", "a/../../x". */
bool archive_escapes(const char *path);

/* Opens a path (absolute or not, same thing) inside the root, following links within it; O_NOFOLLOW
 * is about the last component. A descriptor (close-on-exec) or -errno. */
int archive_open_in(int rootfd, const char *path, unsigned flags);

/* Opens a relative path beneath basefd where no component may be a link. */
int archive_open_beneath(int basefd, const char *path, unsigned flags, bool same_mount);

/* statx(2) of a name in a directory, never following, or of the descriptor itself with "". */
int archive_statx(int dirfd, const char *name, struct statx *out);

/* Where a path leads when all links are followed inside the root; what is missing is taken as it
 * is written. 0 or -errno (ELOOP, ENAMETOOLONG). */
int archive_follow(int rootfd, const char *path, char out[ARCHIVE_PATH]);

/* A path as Docker's cp understands it: "dir", "dir/" and "dir/." mean different things. */
struct archive_place {
    char path[ARCHIVE_PATH]; /* cleaned, absolute */
    const char *base;        /* "." for "dir/.", "/" for "/", else the last component */
    bool through;            /* it must be a directory, and a final link is followed */
    bool dot;
};
int archive_place(const char *path, struct archive_place *place, char *detail);
/* A descriptor with O_PATH, or -errno with detail. What the kernel makes up (in /proc, ...) is not
 * there, as it isn't for Docker; where it is mounted there is a folder. */
int archive_place_open(int rootfd, const struct archive_place *place, char *detail);

bool archive_is_pseudo(int fd); /* a file system that the kernel makes up: proc, sysfs, cgroup... */
bool archive_is_storage(int fd); /* one that holds files: what a volume is made of */

/* The names in a directory, sorted by their bytes. */
struct archive_names {
    char *bytes;
    uint32_t *at; /* offsets into bytes */
    size_t used, room, count;
};
int archive_names_read(int dirfd, struct archive_names *names);
void archive_names_free(struct archive_names *names);

/* One file during a walk. */
struct archive_entry {
    int dirfd;
    const char *name;
    const char *path; /* below the walk's start, no slash in front */
    const struct statx *st;
    bool mounted; /* something is mounted on it */
};

enum archive_walk_when { WALK_BEFORE, WALK_AFTER };
enum { WALK_ON = 0, WALK_SKIP = 1 };
/* Before: WALK_ON, WALK_SKIP (don't descend) or -errno (end). After (directories): 0 or -errno. */
typedef int archive_walk_fn(void *context, const struct archive_entry *entry,
                            enum archive_walk_when when);

/* Calls fn for everything below basefd, sorted, directories before what is in them. Mounts are
 * entered only with cross_mounts, and only where files are stored. Few descriptors at any depth. */
int archive_walk(int basefd, bool cross_mounts, archive_walk_fn *fn, void *context, char *detail);

/* Removes a file or a tree. 0 or -errno; a missing one is fine. */
int archive_remove(int dirfd, const char *name, char *detail);

#endif
