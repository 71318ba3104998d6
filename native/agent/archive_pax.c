/* Extended headers read (pax(1), "pax Extended Header"), and the list of extended attributes. */
#include "archive_tar.h"

#include <errno.h>
#include <string.h>

enum { NAME_MOST = 255 }; /* XATTR_NAME_MAX */

bool tar_xattr_add(struct tar_xattrs *xattrs, const char *name, size_t name_length,
                   const void *value, size_t length)
{
    size_t total = name_length + 1 + sizeof(uint32_t) + length;
    if (name_length > NAME_MOST || total > sizeof xattrs->bytes - xattrs->used)
        return false;
    uint8_t *at = xattrs->bytes + xattrs->used;
    uint32_t size = (uint32_t)length;
    memcpy(at, name, name_length);
    at[name_length] = 0;
    memcpy(at + name_length + 1, &size, sizeof size);
    memcpy(at + name_length + 1 + sizeof size, value, length);
    xattrs->used += total;
    return true;
}

bool tar_xattr_next(const struct tar_xattrs *xattrs, size_t *at, const char **name,
                    const uint8_t **value, size_t *length)
{
    if (*at >= xattrs->used)
        return false;
    const uint8_t *from = xattrs->bytes + *at;
    uint32_t size;
    *name = (const char *)from;
    from += strlen(*name) + 1;
    memcpy(&size, from, sizeof size);
    *value = from + sizeof size;
    *length = size;
    *at = (size_t)(*value - xattrs->bytes) + size;
    return true;
}

static bool digit(char text)
{
    return text >= '0' && text <= '9';
}

/* A decimal number that fills the value; false for anything else, and above 2^63. */
static bool number(const char *value, size_t length, uint64_t *out)
{
    uint64_t found = 0;
    if (!length || length > 19)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (!digit(value[i]))
            return false;
        found = found * 10 + (uint64_t)(value[i] - '0');
    }
    *out = found;
    return found <= INT64_MAX;
}

/* Digits after the point, cut or filled to nanoseconds. */
static bool fraction(const char *value, size_t length, uint32_t *out)
{
    uint32_t found = 0;
    for (size_t i = 0; i < length; i++)
        if (!digit(value[i]))
            return false;
    for (size_t i = 0; i < 9; i++)
        found = found * 10 + (i < length ? (uint32_t)(value[i] - '0') : 0);
    *out = found;
    return true;
}

/* [-]SECONDS[.FRACTION] */
static bool timestamp(const char *value, size_t length, struct tar_entry *entry)
{
    bool negative = length && *value == '-';
    value += negative;
    length -= negative;
    const char *point = memchr(value, '.', length);
    size_t whole = point ? (size_t)(point - value) : length;
    uint64_t seconds;
    uint32_t part = 0;
    if (!number(value, whole, &seconds))
        return false;
    if (point && !fraction(point + 1, length - whole - 1, &part))
        return false;
    entry->mtime = negative ? -(int64_t)seconds : (int64_t)seconds;
    entry->mtime_ns = part;
    if (negative && part) {
        entry->mtime--;
        entry->mtime_ns = 1000000000 - part;
    }
    return true;
}

static bool text_into(char out[ARCHIVE_PATH], const char *value, size_t length)
{
    if (length >= ARCHIVE_PATH || memchr(value, 0, length))
        return false;
    memcpy(out, value, length);
    out[length] = 0;
    return true;
}

static int set_name(struct tar_reader *reader, char out[ARCHIVE_PATH], const char *value,
                    size_t length, bool *set)
{
    *set = length > 0; /* an empty value takes back what was set */
    if (text_into(out, value, length))
        return 0;
    return archive_fail(reader->detail, EINVAL, "archive/tar: a name is too long or has a NUL");
}

static int set_number(struct tar_reader *reader, uint64_t *out, const char *value, size_t length,
                      bool *set)
{
    *set = length > 0;
    if (!length || number(value, length, out))
        return 0;
    return archive_fail(reader->detail, EINVAL, "archive/tar: invalid tar header");
}

static int set_xattr(struct tar_reader *reader, const char *key, size_t key_length,
                     const char *value, size_t length)
{
    if (tar_xattr_add(&reader->entry.xattrs, key, key_length, value, length))
        return 0;
    return archive_fail(reader->detail, E2BIG, "archive/tar: extended attributes are too long");
}

static bool key_is(const char *key, size_t length, const char *name)
{
    return strlen(name) == length && !memcmp(key, name, length);
}

static bool key_begins(const char *key, size_t length, const char *name)
{
    return strlen(name) < length && !memcmp(key, name, strlen(name));
}

static int apply(struct tar_reader *reader, const char *key, size_t key_length, const char *value,
                 size_t length, struct tar_override *set)
{
    static const char schily[] = "SCHILY.xattr.";
    struct tar_entry *entry = &reader->entry;
    if (key_is(key, key_length, "path"))
        return set_name(reader, entry->name, value, length, &set->name);
    if (key_is(key, key_length, "linkpath"))
        return set_name(reader, entry->link, value, length, &set->link);
    if (key_is(key, key_length, "size"))
        return set_number(reader, &entry->size, value, length, &set->size);
    if (key_is(key, key_length, "uid"))
        return set_number(reader, &entry->uid, value, length, &set->uid);
    if (key_is(key, key_length, "gid"))
        return set_number(reader, &entry->gid, value, length, &set->gid);
    if (key_begins(key, key_length, schily))
        return set_xattr(reader, key + sizeof schily - 1, key_length - sizeof schily + 1, value,
                         length);
    if (key_begins(key, key_length, "GNU.sparse."))
        return archive_fail(reader->detail, EINVAL, "archive/tar: sparse files are not supported");
    if (!key_is(key, key_length, "mtime"))
        return 0;
    set->mtime = length > 0;
    if (!length || timestamp(value, length, entry))
        return 0;
    return archive_fail(reader->detail, EINVAL, "archive/tar: invalid tar header");
}

/* One record at the text's start: how long it is, or -errno. */
static ssize_t one(struct tar_reader *reader, char *text, size_t length, struct tar_override *set)
{
    size_t total = 0, used = 0;
    while (used < length && used < 8 && digit(text[used]))
        total = total * 10 + (size_t)(text[used++] - '0');
    if (!used || used >= length || text[used] != ' ' || total > length || total < used + 4 ||
        text[total - 1] != '\n')
        return archive_fail(reader->detail, EINVAL, "archive/tar: invalid tar header");
    char *key = text + used + 1, *end = text + total - 1;
    char *equals = memchr(key, '=', (size_t)(end - key));
    if (!equals || equals == key || memchr(key, 0, (size_t)(equals - key)))
        return archive_fail(reader->detail, EINVAL, "archive/tar: invalid tar header");
    int error =
        apply(reader, key, (size_t)(equals - key), equals + 1, (size_t)(end - equals - 1), set);
    return error ? error : (ssize_t)total;
}

int tar_pax_read(struct tar_reader *reader, char *text, size_t length, struct tar_override *set)
{
    while (length) {
        ssize_t used = one(reader, text, length, set);
        if (used < 0)
            return (int)used;
        text += used;
        length -= (size_t)used;
    }
    return 0;
}
