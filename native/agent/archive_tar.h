/* Tar as a stream of entries: POSIX.1-2001 pax interchange format written; ustar, pax, GNU and v7
 * read. Sparse files of GNU tar are refused. Sizes and lengths of what is read are bounded. */
#ifndef HYPER_ARCHIVE_TAR_H
#define HYPER_ARCHIVE_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "archive_file.h"

enum {
    TAR_BLOCK = 512,
    TAR_BUFFER = 128 * 1024,
    TAR_RECORDS = ARCHIVE_XATTRS + 3 * ARCHIVE_PATH, /* the longest pax header that is written */
    TAR_EXTENDED = 1024 * 1024, /* the longest pax header that is read: Go's bound */
};

enum tar_type {
    TAR_FILE = '0',
    TAR_HARD_LINK = '1',
    TAR_SYMLINK = '2',
    TAR_CHARACTER = '3',
    TAR_BLOCK_DEVICE = '4',
    TAR_DIRECTORY = '5',
    TAR_FIFO = '6',
};

/* Extended attributes, one after the other: name NUL, u32 length, value. */
struct tar_xattrs {
    size_t used;
    uint8_t bytes[ARCHIVE_XATTRS];
};
/* Adds one; false: it does not fit. */
bool tar_xattr_add(struct tar_xattrs *xattrs, const char *name, size_t name_length,
                   const void *value, size_t length);
/* Takes the one at *at and moves on; false at the end. */
bool tar_xattr_next(const struct tar_xattrs *xattrs, size_t *at, const char **name,
                    const uint8_t **value, size_t *length);

struct tar_entry {
    enum tar_type type;
    uint32_t mode; /* as in the header: with the kind's bits when written */
    uint64_t uid, gid, size;
    int64_t mtime;
    uint32_t mtime_ns, major, minor;
    char name[ARCHIVE_PATH], link[ARCHIVE_PATH];
    struct tar_xattrs xattrs;
};

/* An extended header's records while they are gathered. */
struct tar_records {
    size_t used;
    char bytes[TAR_RECORDS];
};

struct tar_writer {
    int fd;
    char *detail;
    size_t used;
    uint8_t buffer[TAR_BUFFER];
    struct tar_records records;
    struct tar_entry extended; /* the header before the records */
};
struct tar_writer *tar_writer_new(int fd, char *detail); /* NULL: no memory */
/* Writes an entry's headers; its size bytes of data follow by tar_write, then tar_pad. */
int tar_write_entry(struct tar_writer *writer, const struct tar_entry *entry);
int tar_write(struct tar_writer *writer, const void *data, size_t length);
int tar_write_zeros(struct tar_writer *writer, uint64_t length);
int tar_pad(struct tar_writer *writer, uint64_t size); /* to the next block */
int tar_write_end(struct tar_writer *writer); /* the end's two blocks, and all written out */

struct tar_reader {
    int fd;
    char *detail;
    bool at_end;   /* of the input */
    uint64_t data; /* bytes of the entry's data that are still to be read */
    unsigned padding;
    size_t at, filled;
    struct tar_entry entry;
    uint8_t buffer[TAR_BUFFER];
};
struct tar_reader *tar_reader_new(int fd, char *detail);
/* 1: an entry is in reader->entry, 0: the archive has ended, or -errno. */
int tar_read_entry(struct tar_reader *reader);
/* Points at some of the entry's data: how much, 0 at its end, or -errno. */
ssize_t tar_read_data(struct tar_reader *reader, const uint8_t **data);
/* Reads the input to its end. */
int tar_read_rest(struct tar_reader *reader);

/* pax.c: the records of an extended header, "LENGTH KEY=VALUE\n". */
struct tar_override {
    bool name, link, size, uid, gid, mtime; /* which of the entry's fields it has set */
};
int tar_pax_read(struct tar_reader *reader, char *text, size_t length, struct tar_override *set);

#endif
