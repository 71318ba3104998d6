/* Tar in and out of a container's root: for cp, export, diff and commit.
 *
 * Formats: POSIX.1-2001 (ustar + PAX) written, ustar/PAX/GNU read; layers as in the OCI image
 * specification (layer.md, whiteouts). Everything is reached from directory descriptors and beneath
 * them: a path never leaves its root, whatever links it holds. Meant for a forked child: blocks on
 * its descriptors, allocates bounded memory, keeps no state between calls.
 *
 * Every function returns 0 or -errno; then detail holds one line for people (NUL-terminated).
 */
#ifndef HYPER_ARCHIVE_H
#define HYPER_ARCHIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARCHIVE_DETAIL 256

/* What Docker's X-Docker-Container-Path-Stat needs; mode is st_mode. */
struct archive_stat {
    char name[256];
    uint64_t size;
    uint32_t mode;
    int64_t mtime_ns;
    char link_target[4096]; /* a symbolic link's final target as a path in the root, else empty */
};

enum archive_flags {
    ARCHIVE_NO_OVERWRITE_DIR_NON_DIR = 1u, /* a directory replaces no other file, nor back */
    ARCHIVE_COPY_IDS = 2u, /* copyUIDGID; the tar's ids are kept in any case, as by dockerd */
};

enum archive_change_kind { ARCHIVE_MODIFIED = 0, ARCHIVE_ADDED = 1, ARCHIVE_DELETED = 2 };

/* Called for each change, sorted by path; path begins with '/'. Non-zero ends it (no error). */
typedef int archive_change_fn(void *ctx, const char *path, enum archive_change_kind kind);

/* lstat of a path beneath rootfd; links before the last component are followed inside the root. */
int archive_stat(int rootfd, const char *path, struct archive_stat *out,
                 char detail[ARCHIVE_DETAIL]);

/* Looks a name up in the root's /etc/passwd, or /etc/group. */
int archive_owner(int rootfd, const char *name, bool group, uint32_t *id,
                  char detail[ARCHIVE_DETAIL]);

/* Writes a tar of the path. Names begin with the path's base name, with "./" for "dir/.", with "/"
 * for the root itself. */
int archive_get(int rootfd, const char *path, int outfd, char detail[ARCHIVE_DETAIL]);

/* Unpacks a tar into the directory at path. Reads infd to the end, also after the archive's end. */
int archive_put(int rootfd, const char *path, int infd, unsigned flags,
                char detail[ARCHIVE_DETAIL]);

/* Writes a tar of the whole root without what is mounted on it. */
int archive_export(int rootfd, int outfd, char detail[ARCHIVE_DETAIL]);

/* Reports what an overlay's upper directory changes; lowers are its layers, uppermost first. */
int archive_changes(int upperfd, const int *lowers, size_t lower_count, archive_change_fn *report,
                    void *ctx, char detail[ARCHIVE_DETAIL]);

/* Writes what archive_changes reports as an OCI layer: what is gone becomes a .wh. file. Of it only
 * what changed after a time: its ctime, which nothing but the kernel's clock sets. ns; 0: all.
 * What is gone may be told again: overlay's whiteouts are one file with many names. */
int archive_diff(int upperfd, const int *lowers, size_t lower_count, int64_t since, int outfd,
                 char detail[ARCHIVE_DETAIL]);

#endif
