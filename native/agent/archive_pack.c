/* Files into a tar: type, owner, times, links, attributes and data of one file after the other. */
#include "archive_pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
    LINKS_START = 256,
    LINKS_MOST = 1 << 20,               /* hard-linked files that are remembered; then: copies */
    LINK_NAMES_MOST = 64 * 1024 * 1024, /* bytes of their names */
    XATTR_NAMES = 16 * 1024,
};

struct link {
    uint64_t device, inode;
    char *name; /* NULL: free */
};

struct archive_links {
    size_t count, room, bytes;
    struct link *table;
};

static uint64_t device_of(const struct statx *st)
{
    return (uint64_t)st->stx_dev_major << 32 | st->stx_dev_minor;
}

static struct link *slot(struct link *table, size_t room, uint64_t device, uint64_t inode)
{
    size_t at = (size_t)((inode * 0x9E3779B97F4A7C15ull ^ device) >> 20) & (room - 1);
    while (table[at].name && (table[at].device != device || table[at].inode != inode))
        at = (at + 1) & (room - 1);
    return &table[at];
}

static bool links_grow(struct archive_links *links)
{
    size_t room = links->room ? links->room * 2 : LINKS_START;
    struct link *table = calloc(room, sizeof *table);
    if (!table)
        return false;
    for (size_t i = 0; i < links->room; i++)
        if (links->table[i].name)
            *slot(table, room, links->table[i].device, links->table[i].inode) = links->table[i];
    free(links->table);
    links->table = table;
    links->room = room;
    return true;
}

/* The name under which this file has been written, or NULL; then `name` is remembered. */
static const char *links_find(struct archive_links *links, const struct statx *st, const char *name)
{
    size_t length = strlen(name) + 1;
    if (links->count * 2 >= links->room && (links->count >= LINKS_MOST || !links_grow(links)))
        return NULL;
    struct link *found = slot(links->table, links->room, device_of(st), st->stx_ino);
    if (found->name)
        return found->name;
    if (links->bytes + length > LINK_NAMES_MOST || !(found->name = strdup(name)))
        return NULL;
    found->device = device_of(st);
    found->inode = st->stx_ino;
    links->bytes += length;
    links->count++;
    return NULL;
}

struct archive_pack *archive_pack_new(int outfd, char *detail)
{
    struct archive_pack *pack = calloc(1, sizeof *pack);
    if (pack) {
        pack->detail = detail;
        pack->prefix = "";
        pack->links = calloc(1, sizeof *pack->links);
        pack->writer = tar_writer_new(outfd, detail);
    }
    if (pack && pack->links && pack->writer)
        return pack;
    archive_pack_free(pack);
    archive_fail(detail, ENOMEM, "out of memory");
    return NULL;
}

void archive_pack_free(struct archive_pack *pack)
{
    if (!pack)
        return;
    for (size_t i = 0; pack->links && i < pack->links->room; i++)
        free(pack->links->table[i].name);
    if (pack->links)
        free(pack->links->table);
    free(pack->links);
    free(pack->writer);
    free(pack);
}

int archive_pack_end(struct archive_pack *pack, int error)
{
    if (!error)
        error = tar_write_end(pack->writer);
    archive_pack_free(pack);
    return error;
}

/* Attributes that belong to the file whoever looks at it: Docker keeps the capability only. Those
 * of overlay (trusted.*) and of the host's security modules would mean something else elsewhere. */
static bool xattr_wanted(const char *name)
{
    return !strcmp(name, "security.capability") || !strncmp(name, "user.", 5);
}

static void xattrs_read(int fd, struct tar_xattrs *xattrs)
{
    char names[XATTR_NAMES];
    static uint8_t value[ARCHIVE_XATTRS];
    ssize_t length = flistxattr(fd, names, sizeof names);
    for (ssize_t at = 0; at < length; at += (ssize_t)strlen(names + at) + 1) {
        const char *name = names + at;
        if (!xattr_wanted(name))
            continue;
        ssize_t got = fgetxattr(fd, name, value, sizeof value);
        if (got >= 0)
            tar_xattr_add(xattrs, name, strlen(name), value, (size_t)got);
    }
}

static int set_name(struct archive_pack *pack, char out[ARCHIVE_PATH], const char *name, bool slash)
{
    if (snprintf(out, ARCHIVE_PATH, "%s%s", name, slash ? "/" : "") < ARCHIVE_PATH)
        return 0;
    return archive_fail(pack->detail, ENAMETOOLONG, "%s: file name too long", name);
}

static void set_stat(struct archive_pack *pack, const struct statx *st)
{
    struct tar_entry *entry = &pack->entry;
    entry->mode = st->stx_mode & 07777;
    entry->uid = st->stx_uid;
    entry->gid = st->stx_gid;
    entry->mtime = st->stx_mtime.tv_sec;
    entry->mtime_ns = pack->nanoseconds ? st->stx_mtime.tv_nsec : 0;
    entry->size = 0;
    entry->major = entry->minor = 0;
    entry->link[0] = 0;
    entry->xattrs.used = 0;
}

/* Exactly `size` bytes: a file that shrinks meanwhile is filled up with zeros, one that grows is
 * cut, for the header has been written. */
static int pack_data(struct archive_pack *pack, int fd, uint64_t size)
{
    uint64_t left = size;
    while (left) {
        size_t most = left < sizeof pack->data ? (size_t)left : sizeof pack->data;
        ssize_t got = read(fd, pack->data, most);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return archive_fail(pack->detail, errno, "read %s: %s", pack->entry.name,
                                archive_reason(errno));
        int error = got ? tar_write(pack->writer, pack->data, (size_t)got)
                        : tar_write_zeros(pack->writer, left);
        if (error)
            return error;
        left = got ? left - (uint64_t)got : 0;
    }
    return tar_pad(pack->writer, size);
}

static int pack_regular(struct archive_pack *pack, int dirfd, const char *file)
{
    struct statx st;
    /* O_NONBLOCK: should it have become a fifo meanwhile, nobody waits for a writer. */
    int fd = openat(dirfd, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ELOOP || errno == ENXIO))
        return 0;
    if (fd < 0)
        return archive_fail(pack->detail, errno, "open %s: %s", pack->entry.name,
                            archive_reason(errno));
    int error = archive_statx(fd, "", &st);
    if (!error && S_ISREG(st.stx_mode)) {
        set_stat(pack, &st);
        pack->entry.type = TAR_FILE;
        pack->entry.size = st.stx_size;
        xattrs_read(fd, &pack->entry.xattrs);
        error = tar_write_entry(pack->writer, &pack->entry);
        if (!error)
            error = pack_data(pack, fd, st.stx_size);
    }
    close(fd);
    return error;
}

static int pack_directory(struct archive_pack *pack, int dirfd, const char *file)
{
    int fd = openat(dirfd, file, O_RDONLY | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        xattrs_read(fd, &pack->entry.xattrs);
        close(fd);
    }
    return tar_write_entry(pack->writer, &pack->entry);
}

static int pack_symlink(struct archive_pack *pack, int dirfd, const char *file)
{
    ssize_t length = readlinkat(dirfd, file, pack->entry.link, sizeof pack->entry.link - 1);
    if (length < 0)
        return 0; /* it is gone */
    pack->entry.link[length] = 0;
    return tar_write_entry(pack->writer, &pack->entry);
}

static enum tar_type type_of(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return TAR_DIRECTORY;
    case S_IFLNK:
        return TAR_SYMLINK;
    case S_IFCHR:
        return TAR_CHARACTER;
    case S_IFBLK:
        return TAR_BLOCK_DEVICE;
    case S_IFIFO:
        return TAR_FIFO;
    default:
        return TAR_FILE;
    }
}

int archive_pack_file(struct archive_pack *pack, int dirfd, const char *file, const char *name,
                      const struct statx *st)
{
    struct tar_entry *entry = &pack->entry;
    if (S_ISSOCK(st->stx_mode))
        return 0;
    int error = set_name(pack, entry->name, name, S_ISDIR(st->stx_mode));
    if (error)
        return error;
    set_stat(pack, st);
    entry->type = type_of(st->stx_mode);
    if (st->stx_nlink > 1 && entry->type != TAR_DIRECTORY) {
        const char *first = links_find(pack->links, st, name);
        if (first) {
            entry->type = TAR_HARD_LINK;
            strcpy(entry->link, first);
            return tar_write_entry(pack->writer, entry);
        }
    }
    switch (entry->type) {
    case TAR_FILE:
        return pack_regular(pack, dirfd, file);
    case TAR_DIRECTORY:
        return pack_directory(pack, dirfd, file);
    case TAR_SYMLINK:
        return pack_symlink(pack, dirfd, file);
    default:
        entry->major = st->stx_rdev_major;
        entry->minor = st->stx_rdev_minor;
        return tar_write_entry(pack->writer, entry);
    }
}

int archive_pack_empty(struct archive_pack *pack, const char *name, uint32_t mode)
{
    struct statx none = {.stx_mode = (uint16_t)mode};
    int error = set_name(pack, pack->entry.name, name, false);
    set_stat(pack, &none);
    pack->entry.type = TAR_FILE;
    return error ? error : tar_write_entry(pack->writer, &pack->entry);
}
