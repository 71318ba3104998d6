/* Tar read: ustar and pax (POSIX.1-2001), GNU (long names and links, base-256 numbers) and v7. What
 * is odd is read as Go's archive/tar does, since that is what Docker takes. */
#include "archive_tar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where a header's fields begin. */
enum {
    AT_NAME = 0,
    AT_MODE = 100,
    AT_UID = 108,
    AT_GID = 116,
    AT_SIZE = 124,
    AT_MTIME = 136,
    AT_CHECKSUM = 148,
    AT_TYPE = 156,
    AT_LINK = 157,
    AT_MAGIC = 257,
    AT_MAJOR = 329,
    AT_MINOR = 337,
    AT_PREFIX = 345,
    AT_STAR = 508,
};

struct tar_reader *tar_reader_new(int fd, char *detail)
{
    struct tar_reader *reader = calloc(1, sizeof *reader);
    if (reader) {
        reader->fd = fd;
        reader->detail = detail;
    }
    return reader;
}

static int invalid(struct tar_reader *reader)
{
    return archive_fail(reader->detail, EINVAL, "archive/tar: invalid tar header");
}

/* Reads until something is in the buffer: 1, 0 at the input's end, or -errno. */
static int fill(struct tar_reader *reader)
{
    while (reader->at == reader->filled && !reader->at_end) {
        ssize_t got = read(reader->fd, reader->buffer, sizeof reader->buffer);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return archive_fail(reader->detail, errno, "read archive: %s", archive_reason(errno));
        reader->at_end = !got;
        reader->at = 0;
        reader->filled = (size_t)got;
    }
    return reader->at < reader->filled;
}

/* Points at up to `most` bytes of the input: how many, 0 at its end, or -errno. */
static ssize_t take(struct tar_reader *reader, uint64_t most, const uint8_t **data)
{
    int filled = fill(reader);
    if (filled <= 0)
        return filled;
    size_t there = reader->filled - reader->at;
    size_t part = most < there ? (size_t)most : there;
    *data = reader->buffer + reader->at;
    reader->at += part;
    return (ssize_t)part;
}

/* Copies exactly `length` bytes: 1, 0 if the input ends before the first, or -errno. */
static int copy(struct tar_reader *reader, void *out, size_t length)
{
    size_t done = 0;
    while (done < length) {
        const uint8_t *data;
        ssize_t part = take(reader, length - done, &data);
        if (part < 0)
            return (int)part;
        if (!part)
            return done ? archive_fail(reader->detail, EINVAL, "unexpected EOF") : 0;
        memcpy((uint8_t *)out + done, data, (size_t)part);
        done += (size_t)part;
    }
    return 1;
}

static int skip(struct tar_reader *reader, uint64_t length)
{
    while (length) {
        const uint8_t *data;
        ssize_t part = take(reader, length, &data);
        if (part <= 0)
            return part ? (int)part : archive_fail(reader->detail, EINVAL, "unexpected EOF");
        length -= (uint64_t)part;
    }
    return 0;
}

int tar_read_rest(struct tar_reader *reader)
{
    const uint8_t *data;
    ssize_t part;
    while ((part = take(reader, UINT64_MAX, &data)) > 0)
        ;
    return (int)part;
}

ssize_t tar_read_data(struct tar_reader *reader, const uint8_t **data)
{
    if (!reader->data)
        return 0;
    ssize_t part = take(reader, reader->data, data);
    if (!part)
        return archive_fail(reader->detail, EINVAL, "unexpected EOF");
    if (part > 0)
        reader->data -= (uint64_t)part;
    return part;
}

/* Base-256: the first bit says so, the second is the sign; up to 63 bits. */
static bool binary(const uint8_t *field, size_t room, int64_t *out)
{
    bool negative = field[0] & 0x40;
    uint64_t value = negative ? UINT64_MAX : 0;
    for (size_t i = 0; i < room; i++) {
        uint8_t byte = i ? field[i] : (uint8_t)((field[0] & 0x7f) | (negative ? 0x80 : 0));
        if ((value >> 55) != (negative ? 0x1ff : 0))
            return false;
        value = value << 8 | byte;
    }
    *out = (int64_t)value;
    return true;
}

/* An octal number between blanks and NULs, or base-256. Empty is 0. */
static bool number(const uint8_t *field, size_t room, int64_t *out)
{
    if (field[0] & 0x80)
        return binary(field, room, out);
    size_t at = 0, end = room;
    while (at < room && (field[at] == ' ' || !field[at]))
        at++;
    while (end > at && (field[end - 1] == ' ' || !field[end - 1]))
        end--;
    uint64_t value = 0;
    for (; at < end; at++) {
        if (!field[at])
            break;
        if (field[at] < '0' || field[at] > '7' || value >> 60)
            return false;
        value = value << 3 | (uint64_t)(field[at] - '0');
    }
    *out = (int64_t)value;
    return true;
}

static bool checksum_good(const uint8_t *block)
{
    int64_t wanted, plain = 0, signed_sum = 0;
    if (!number(block + AT_CHECKSUM, 8, &wanted))
        return false;
    for (size_t i = 0; i < TAR_BLOCK; i++) {
        uint8_t byte = i >= AT_CHECKSUM && i < AT_CHECKSUM + 8 ? ' ' : block[i];
        plain += byte;
        signed_sum += (int8_t)byte;
    }
    return wanted == plain || wanted == signed_sum;
}

static void text(char *out, const uint8_t *field, size_t room)
{
    size_t length = strnlen((const char *)field, room);
    memcpy(out, field, length);
    out[length] = 0;
}

/* The name, with ustar's prefix before it; GNU and v7 have other things in that place. */
static void header_name(const uint8_t *block, char out[ARCHIVE_PATH])
{
    char prefix[156] = "";
    if (!memcmp(block + AT_MAGIC, "ustar", 6))
        text(prefix, block + AT_PREFIX, memcmp(block + AT_STAR, "tar", 4) ? 155 : 131);
    size_t length = strlen(prefix);
    memcpy(out, prefix, length);
    if (length)
        out[length++] = '/';
    text(out + length, block + AT_NAME, 100);
}

static bool header_numbers(const uint8_t *block, struct tar_entry *entry,
                           const struct tar_override *set)
{
    int64_t mode, uid, gid, size, mtime, major = 0, minor = 0;
    bool good = number(block + AT_MODE, 8, &mode) && number(block + AT_UID, 8, &uid) &&
                number(block + AT_GID, 8, &gid) && number(block + AT_SIZE, 12, &size) &&
                number(block + AT_MTIME, 12, &mtime);
    bool device = block[AT_TYPE] == TAR_CHARACTER || block[AT_TYPE] == TAR_BLOCK_DEVICE;
    if (good && device)
        good = number(block + AT_MAJOR, 8, &major) && number(block + AT_MINOR, 8, &minor);
    if (!good || size < 0 || major < 0 || minor < 0 || major > UINT32_MAX || minor > UINT32_MAX)
        return false;
    entry->mode = (uint32_t)mode & 07777;
    entry->major = (uint32_t)major;
    entry->minor = (uint32_t)minor;
    if (!set->uid)
        entry->uid = (uint64_t)uid;
    if (!set->gid)
        entry->gid = (uint64_t)gid;
    if (!set->size)
        entry->size = (uint64_t)size;
    if (!set->mtime)
        entry->mtime = mtime;
    return entry->uid < UINT32_MAX && entry->gid < UINT32_MAX;
}

/* A header of an entry that is really there (not one that says something about the next). */
static int header_entry(struct tar_reader *reader, const uint8_t *block,
                        const struct tar_override *set)
{
    struct tar_entry *entry = &reader->entry;
    if (!set->name)
        header_name(block, entry->name);
    if (!set->link)
        text(entry->link, block + AT_LINK, 100);
    if (!header_numbers(block, entry, set))
        return invalid(reader);
    uint8_t type = block[AT_TYPE];
    if (!type || type == '7')
        type = TAR_FILE;
    size_t length = strlen(entry->name);
    if (type == TAR_FILE && length && entry->name[length - 1] == '/')
        type = TAR_DIRECTORY;
    if (type < TAR_FILE || type > TAR_FIFO) {
        const char *words =
            type == 'S' ? "sparse files are not supported" : "unhandled tar header type";
        return archive_fail(reader->detail, EINVAL, "archive/tar: %s %d", words, type);
    }
    entry->type = (enum tar_type)type;
    if (entry->type != TAR_FILE)
        entry->size = 0;
    reader->data = entry->size;
    reader->padding = (unsigned)((TAR_BLOCK - entry->size % TAR_BLOCK) % TAR_BLOCK);
    return 1;
}

/* Reads the data of a header that is about the next entry; *out has a NUL behind, to be freed. */
static int extra(struct tar_reader *reader, const uint8_t *block, char **out, size_t *length)
{
    int64_t size;
    if (!number(block + AT_SIZE, 12, &size) || size < 0)
        return invalid(reader);
    if (size > TAR_EXTENDED)
        return archive_fail(reader->detail, E2BIG, "archive/tar: a header is too long");
    *length = (size_t)size;
    *out = malloc(*length + 1);
    if (!*out)
        return archive_fail(reader->detail, ENOMEM, "out of memory");
    (*out)[*length] = 0;
    int got = *length ? copy(reader, *out, *length) : 1;
    if (!got)
        got = archive_fail(reader->detail, EINVAL, "unexpected EOF");
    int error = got < 0 ? got : skip(reader, (TAR_BLOCK - *length % TAR_BLOCK) % TAR_BLOCK);
    if (error) {
        free(*out);
        *out = NULL;
    }
    return error;
}

static int long_name(struct tar_reader *reader, char out[ARCHIVE_PATH], const char *name, bool *set)
{
    if (strlen(name) >= ARCHIVE_PATH)
        return archive_fail(reader->detail, ENAMETOOLONG, "archive/tar: a name is too long");
    strcpy(out, name);
    *set = true;
    return 0;
}

/* Takes in a header that is about the next entry: 1 if this was one, 0 if not, or -errno. */
static int header_extra(struct tar_reader *reader, const uint8_t *block, struct tar_override *set)
{
    uint8_t type = block[AT_TYPE];
    if (type != 'x' && type != 'g' && type != 'L' && type != 'K')
        return 0;
    char *bytes = NULL;
    size_t length = 0;
    int error = extra(reader, block, &bytes, &length);
    if (error)
        return error;
    if (type == 'x')
        error = tar_pax_read(reader, bytes, length, set);
    else if (type == 'L')
        error = long_name(reader, reader->entry.name, bytes, &set->name);
    else if (type == 'K')
        error = long_name(reader, reader->entry.link, bytes, &set->link);
    free(bytes); /* global headers are passed over, as by Docker */
    return error ? error : 1;
}

static bool all_zero(const uint8_t *block)
{
    return !block[0] && !memcmp(block, block + 1, TAR_BLOCK - 1);
}

/* The start of the next header: whatever was left of the entry before is passed over. */
static int next_block(struct tar_reader *reader, uint8_t *block)
{
    int error = skip(reader, reader->data);
    if (!error)
        error = skip(reader, reader->padding);
    reader->data = 0;
    reader->padding = 0;
    return error ? error : copy(reader, block, TAR_BLOCK);
}

int tar_read_entry(struct tar_reader *reader)
{
    uint8_t block[TAR_BLOCK];
    struct tar_override set = {0};
    bool begun = false;
    for (;;) {
        int got = next_block(reader, block);
        if (got == 0 && begun)
            return archive_fail(reader->detail, EINVAL, "unexpected EOF");
        if (got <= 0)
            return got;
        if (all_zero(block))
            return begun ? invalid(reader) : 0;
        if (!checksum_good(block))
            return invalid(reader);
        if (!begun)
            memset(&reader->entry, 0, offsetof(struct tar_entry, xattrs) + sizeof(size_t));
        int about_next = header_extra(reader, block, &set);
        if (about_next < 0)
            return about_next;
        if (!about_next)
            return header_entry(reader, block, &set);
        begun = true;
    }
}
