/* Tar written: pax interchange format (POSIX.1-2001, pax(1)). What fits goes into the ustar header,
 * the rest into an extended header before it. Modes keep the bits of the file's kind (Docker). */
#include "archive_tar.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    OCTAL_7 = 07777777,
    NAME_FIELD = 100,
};
#define OCTAL_11 077777777777ull

struct ustar {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100],
        magic[6], version[2], uname[32], gname[32], major[8], minor[8], prefix[155], unused[12];
};
_Static_assert(sizeof(struct ustar) == TAR_BLOCK, "a header is one block");

struct tar_writer *tar_writer_new(int fd, char *detail)
{
    struct tar_writer *writer = calloc(1, sizeof *writer);
    if (writer) {
        writer->fd = fd;
        writer->detail = detail;
    }
    return writer;
}

static int flush(struct tar_writer *writer)
{
    size_t done = 0;
    while (done < writer->used) {
        ssize_t sent = write(writer->fd, writer->buffer + done, writer->used - done);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return archive_fail(writer->detail, errno, "write archive: %s", archive_reason(errno));
        done += (size_t)sent;
    }
    writer->used = 0;
    return 0;
}

int tar_write(struct tar_writer *writer, const void *data, size_t length)
{
    const uint8_t *from = data;
    while (length) {
        size_t room = sizeof writer->buffer - writer->used;
        size_t part = length < room ? length : room;
        memcpy(writer->buffer + writer->used, from, part);
        writer->used += part;
        from += part;
        length -= part;
        int error = writer->used == sizeof writer->buffer ? flush(writer) : 0;
        if (error)
            return error;
    }
    return 0;
}

int tar_write_zeros(struct tar_writer *writer, uint64_t length)
{
    static const uint8_t zeros[8192];
    int error = 0;
    while (!error && length) {
        size_t part = length < sizeof zeros ? (size_t)length : sizeof zeros;
        error = tar_write(writer, zeros, part);
        length -= part;
    }
    return error;
}

int tar_pad(struct tar_writer *writer, uint64_t size)
{
    return tar_write_zeros(writer, (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK);
}

int tar_write_end(struct tar_writer *writer)
{
    int error = tar_write_zeros(writer, 2 * (uint64_t)TAR_BLOCK);
    return error ? error : flush(writer);
}

static size_t digits(size_t number)
{
    size_t count = 1;
    while (number /= 10)
        count++;
    return count;
}

/* "LENGTH KEY=VALUE\n", where LENGTH counts itself. */
static int record(struct tar_records *records, const char *prefix, const char *key,
                  const void *value, size_t length)
{
    size_t rest = strlen(prefix) + strlen(key) + length + 3;
    size_t total = rest + digits(rest);
    if (digits(total) > digits(rest))
        total = rest + digits(total);
    if (records->used + total + 1 > sizeof records->bytes)
        return -E2BIG;
    char *at = records->bytes + records->used;
    int head = snprintf(at, total + 1, "%zu %s%s=", total, prefix, key);
    memcpy(at + head, value, length);
    at[total - 1] = '\n';
    records->used += total;
    return 0;
}

static int record_number(struct tar_records *records, const char *key, uint64_t value)
{
    char text[24];
    int length = snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return record(records, "", key, text, (size_t)length);
}

static int record_time(struct tar_records *records, int64_t seconds, uint32_t part)
{
    char text[40];
    bool negative = seconds < 0;
    if (negative && part) { /* -2 s and 0.5 s are -1.5 s */
        seconds++;
        part = 1000000000 - part;
    }
    uint64_t whole = negative ? -(uint64_t)seconds : (uint64_t)seconds;
    int length = snprintf(text, sizeof text, "%s%llu.%09u", negative ? "-" : "",
                          (unsigned long long)whole, part);
    while (text[length - 1] == '0')
        length--;
    if (text[length - 1] == '.')
        length--;
    return record(records, "", "mtime", text, (size_t)length);
}

static int record_xattrs(struct tar_records *records, const struct tar_xattrs *xattrs)
{
    size_t at = 0, length;
    const char *name;
    const uint8_t *value;
    int error = 0;
    while (!error && tar_xattr_next(xattrs, &at, &name, &value, &length))
        error = record(records, "SCHILY.xattr.", name, value, length);
    return error;
}

/* Names go into the header as they are while they are ASCII and fit; else as a pax record too. */
static bool plain(const char *text)
{
    size_t length = 0;
    for (; *text; text++, length++)
        if ((unsigned char)*text >= 0x80)
            return false;
    return length <= NAME_FIELD;
}

/* How many bytes of a UTF-8 sequence follow its first byte; -1: it is no first byte. */
static int follows(unsigned char first)
{
    return first < 0x80   ? 0
           : first < 0xc2 ? -1
           : first < 0xe0 ? 1
           : first < 0xf0 ? 2
           : first < 0xf5 ? 3
                          : -1;
}

static bool utf8(const char *text)
{
    while (*text) {
        int left = follows((unsigned char)*text++);
        if (left < 0)
            return false;
        for (; left; left--)
            if (((unsigned char)*text++ & 0xc0) != 0x80)
                return false;
    }
    return true;
}

static int gather(struct tar_records *records, const struct tar_entry *entry)
{
    int error = 0;
    /* Records are UTF-8 unless this one says otherwise (pax(1)). */
    if (!utf8(entry->name) || !utf8(entry->link))
        error = record(records, "", "hdrcharset", "BINARY", 6);
    if (!error && !plain(entry->name))
        error = record(records, "", "path", entry->name, strlen(entry->name));
    if (!error && !plain(entry->link))
        error = record(records, "", "linkpath", entry->link, strlen(entry->link));
    if (!error && entry->size > OCTAL_11)
        error = record_number(records, "size", entry->size);
    if (!error && entry->uid > OCTAL_7)
        error = record_number(records, "uid", entry->uid);
    if (!error && entry->gid > OCTAL_7)
        error = record_number(records, "gid", entry->gid);
    if (!error && (entry->mtime < 0 || entry->mtime > (int64_t)OCTAL_11 || entry->mtime_ns))
        error = record_time(records, entry->mtime, entry->mtime_ns);
    return error ? error : record_xattrs(records, &entry->xattrs);
}

/* Digits with a NUL behind; a value that does not fit is 0, and right in the extended header. */
static void octal(char *field, size_t room, uint64_t value, uint64_t most)
{
    char text[24];
    int width = (int)room - 1;
    snprintf(text, sizeof text, "%0*llo", width, (unsigned long long)(value > most ? 0 : value));
    memcpy(field, text, room);
}

static void name_field(char *field, size_t room, const char *text)
{
    size_t length = strlen(text);
    memcpy(field, text, length < room ? length : room);
}

static int put_header(struct tar_writer *writer, const struct tar_entry *entry)
{
    struct ustar header = {.type = (char)entry->type, .magic = "ustar", .version = {'0', '0'}};
    name_field(header.name, sizeof header.name, entry->name);
    name_field(header.link, sizeof header.link, entry->link);
    octal(header.mode, sizeof header.mode, entry->mode, OCTAL_7);
    octal(header.uid, sizeof header.uid, entry->uid, OCTAL_7);
    octal(header.gid, sizeof header.gid, entry->gid, OCTAL_7);
    octal(header.size, sizeof header.size, entry->size, OCTAL_11);
    octal(header.mtime, sizeof header.mtime, entry->mtime < 0 ? 0 : (uint64_t)entry->mtime,
          OCTAL_11);
    octal(header.major, sizeof header.major, entry->major, OCTAL_7);
    octal(header.minor, sizeof header.minor, entry->minor, OCTAL_7);
    memset(header.checksum, ' ', sizeof header.checksum);
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof header; i++)
        sum += ((const uint8_t *)&header)[i];
    octal(header.checksum, 7, sum, OCTAL_7);
    return tar_write(writer, &header, sizeof header);
}

/* The header of the records: its name is only seen by programs that don't know its type. */
static int put_records(struct tar_writer *writer, const struct tar_entry *entry)
{
    struct tar_entry *extended = &writer->extended;
    const struct tar_records *records = &writer->records;
    size_t length = strlen(entry->name);
    while (length && entry->name[length - 1] == '/')
        length--;
    size_t start = length;
    while (start && entry->name[start - 1] != '/')
        start--;
    int shown = length - start < 80 ? (int)(length - start) : 80;
    snprintf(extended->name, sizeof extended->name, "PaxHeaders.0/%.*s", shown,
             entry->name + start);
    extended->type = 'x';
    extended->mode = 0644;
    extended->size = records->used;
    int error = put_header(writer, extended);
    if (!error)
        error = tar_write(writer, records->bytes, records->used);
    return error ? error : tar_pad(writer, records->used);
}

int tar_write_entry(struct tar_writer *writer, const struct tar_entry *entry)
{
    writer->records.used = 0;
    int error = gather(&writer->records, entry);
    if (error)
        return archive_fail(writer->detail, -error, "%s: its names are too long for a tar",
                            entry->name);
    if (writer->records.used)
        error = put_records(writer, entry);
    return error ? error : put_header(writer, entry);
}
