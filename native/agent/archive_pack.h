/* Files into a tar: what get, export and diff share. */
#ifndef HYPER_ARCHIVE_PACK_H
#define HYPER_ARCHIVE_PACK_H

#include "archive_tar.h"

struct archive_pack {
    struct tar_writer *writer;
    struct archive_links *links; /* hard links already written, by device and inode */
    char *detail;
    /* Docker's tars have whole seconds. Layers keep all, for a file of the same size that was written
     * in the same second must be told from what is below it. */
    bool nanoseconds;
    const char *prefix; /* before every path: "" for names that begin with the path itself */
    struct tar_entry entry;
    uint8_t data[TAR_BUFFER];
};

struct archive_pack *archive_pack_new(int outfd, char *detail); /* NULL: no memory, with detail */
void archive_pack_free(struct archive_pack *pack);

/* Writes one file under a name ("/" is added to a directory's). Sockets and what vanished meanwhile
 * are passed over. */
int archive_pack_file(struct archive_pack *pack, int dirfd, const char *file, const char *name,
                      const struct statx *st);

/* Writes an empty regular file. */
int archive_pack_empty(struct archive_pack *pack, const char *name, uint32_t mode);

/* Ends the archive if nothing has failed so far; frees the pack. */
int archive_pack_end(struct archive_pack *pack, int error);

/* archive_stub.c: what exists in every container to have things mounted on it and no image holds:
 * Docker keeps these out of diff and commit. `path` has no slash in front. */
bool archive_is_stub(int dirfd, const char *path, const char *name, const struct statx *st);

#endif
