/* Docker's diff: what an overlay's upper directory changes in the layers below it.
 *
 * dockerd compares the whole merged tree with the image's. Only what lies in the upper directory
 * can differ, so only that is walked, with the same rules: a file is modified if its mode, owner,
 * device number, capability or (not for directories) size or time differs; a directory with changes
 * in it is modified; what a new or replaced directory holds is added; a removed directory is one
 * deletion. */
#include "archive_overlay.h"
#include "archive_pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
    LAYERS_MOST = 500,                /* overlay's OVL_MAX_STACK */
    CHANGES_MOST = 128 * 1024 * 1024, /* bytes of changed paths in memory */
    CAPABILITY_MOST = 64,
};

/* The layers in which a directory of the image has a part, uppermost first. */
struct parts {
    size_t count;
    uint16_t layer[LAYERS_MOST];
};

struct change {
    size_t path; /* its offset, until all are gathered */
    enum archive_change_kind kind;
};

struct changes {
    int upperfd;
    const int *lowers;
    char *detail;
    size_t count, room;
    struct change *list;
    size_t text_used, text_room;
    char *text;
    size_t length;
    char path[ARCHIVE_PATH]; /* of the directory or file at hand, no slash in front */
};

static int no_memory(struct changes *changes)
{
    return archive_fail(changes->detail, ENOMEM, "too many changes");
}

static int add(struct changes *changes, const char *path, enum archive_change_kind kind)
{
    size_t length = strlen(path) + 2;
    if (changes->text_used + length > changes->text_room) {
        size_t room = changes->text_room ? changes->text_room * 2 : 65536;
        char *grown = room > CHANGES_MOST ? NULL : realloc(changes->text, room);
        if (!grown)
            return no_memory(changes);
        changes->text = grown;
        changes->text_room = room;
    }
    if (changes->count == changes->room) {
        size_t room = changes->room ? changes->room * 2 : 1024;
        struct change *grown = realloc(changes->list, room * sizeof *grown);
        if (!grown)
            return no_memory(changes);
        changes->list = grown;
        changes->room = room;
    }
    changes->list[changes->count++] = (struct change){changes->text_used, kind};
    changes->text[changes->text_used] = '/';
    memcpy(changes->text + changes->text_used + 1, path, length - 1);
    changes->text_used += length;
    return 0;
}

static const char *here(const struct changes *changes)
{
    return changes->length ? changes->path : ".";
}

static int push(struct changes *changes, const char *name)
{
    size_t length = strlen(name);
    if (changes->length + 1 + length >= sizeof changes->path)
        return archive_fail(changes->detail, ENAMETOOLONG, "%s/%s: file name too long",
                            changes->path, name);
    if (changes->length)
        changes->path[changes->length++] = '/';
    memcpy(changes->path + changes->length, name, length + 1);
    changes->length += length;
    return 0;
}

static void pop(struct changes *changes, size_t length)
{
    changes->length = length;
    changes->path[length] = 0;
}

/* A directory's parts, open. */
struct open_parts {
    const struct parts *parts;
    int fd[LAYERS_MOST];
};

static void close_parts(struct open_parts *open)
{
    for (size_t i = 0; open && i < open->parts->count; i++)
        if (open->fd[i] >= 0)
            close(open->fd[i]);
    free(open);
}

/* NULL: no memory. */
static struct open_parts *open_parts(struct changes *changes, const struct parts *parts)
{
    struct open_parts *open = malloc(sizeof *open);
    if (!open)
        return NULL;
    open->parts = parts;
    for (size_t i = 0; i < parts->count; i++)
        open->fd[i] = archive_open_beneath(changes->lowers[parts->layer[i]], here(changes),
                                           O_RDONLY | O_DIRECTORY, true);
    return open;
}

/* Looks a name up as the image has it. True: it exists; *where is the part that holds it. For a
 * directory `below` gets the layers that have a part of it. */
static bool look_up(const struct open_parts *open, const char *name, struct statx *st,
                    size_t *where, struct parts *below)
{
    bool found = false;
    below->count = 0;
    for (size_t i = 0; i < open->parts->count; i++) {
        struct statx one;
        if (open->fd[i] < 0 || archive_statx(open->fd[i], name, &one))
            continue;
        bool directory = S_ISDIR(one.stx_mode);
        if (overlay_is_whiteout(&one) || (found && !directory))
            break;
        if (!found) {
            *st = one;
            *where = i;
            found = true;
        }
        if (!directory)
            break;
        below->layer[below->count++] = open->parts->layer[i];
        if (overlay_is_opaque(open->fd[i], name))
            break;
    }
    return found;
}

static ssize_t capability(int dirfd, const char *name, uint8_t *out)
{
    int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t length = fgetxattr(fd, "security.capability", out, CAPABILITY_MOST);
    close(fd);
    return length;
}

static bool capability_differs(int upper, int lower, const char *name)
{
    uint8_t new[CAPABILITY_MOST], old[CAPABILITY_MOST];
    ssize_t length = capability(upper, name, new);
    if (length != capability(lower, name, old))
        return true;
    return length > 0 && memcmp(new, old, (size_t)length);
}

/* Times without nanoseconds, as older tars have them, say nothing about the nanoseconds. */
static bool time_differs(const struct statx *new, const struct statx *old)
{
    uint32_t a = new->stx_mtime.tv_nsec, b = old->stx_mtime.tv_nsec;
    return new->stx_mtime.tv_sec != old->stx_mtime.tv_sec || (a != b && a && b);
}

static bool differs(const struct statx *new, const struct statx *old)
{
    if (new->stx_mode != old->stx_mode || new->stx_uid != old->stx_uid ||
        new->stx_gid != old->stx_gid || new->stx_rdev_major != old->stx_rdev_major ||
        new->stx_rdev_minor != old->stx_rdev_minor)
        return true;
    return !S_ISDIR(new->stx_mode) && (new->stx_size != old->stx_size || time_differs(new, old));
}

static int open_upper(struct changes *changes)
{
    int fd = archive_open_beneath(changes->upperfd, here(changes), O_RDONLY | O_DIRECTORY, true);
    if (fd < 0)
        return archive_fail(changes->detail, -fd, "open %s: %s", here(changes),
                            archive_reason(-fd));
    return fd;
}

/* What the image has in a directory that the upper one covers, and the upper one has not. */
static int covered(struct changes *changes, int upper, const struct open_parts *open)
{
    int error = 0;
    for (size_t i = 0; !error && i < open->parts->count; i++) {
        struct archive_names names;
        if (open->fd[i] < 0 || archive_names_read(open->fd[i], &names))
            continue;
        for (size_t j = 0; !error && j < names.count; j++) {
            const char *name = names.bytes + names.at[j];
            struct statx st;
            struct parts below;
            size_t where, length = changes->length;
            if (!archive_statx(upper, name, &st))
                continue; /* told when it was compared */
            if (!look_up(open, name, &st, &where, &below) || where != i)
                continue;
            error = push(changes, name);
            if (!error)
                error = add(changes, changes->path, ARCHIVE_DELETED);
            pop(changes, length);
        }
        archive_names_free(&names);
    }
    return error;
}

/* What one name of the upper directory is beside the image. */
struct compared {
    struct statx new;
    bool existed, was_directory, changed, opaque;
    struct parts below;
};

/* Compares and tells. The name is the last component of the path. */
static int compare(struct changes *changes, int upper, const char *name,
                   const struct open_parts *open, struct compared *found)
{
    struct statx old;
    size_t where = 0;
    const struct statx *new = &found->new;
    found->existed = look_up(open, name, &old, &where, &found->below);
    found->was_directory = found->existed && S_ISDIR(old.stx_mode);
    found->opaque = S_ISDIR(new->stx_mode) && overlay_is_opaque(upper, name);
    found->changed = false;
    if (overlay_is_whiteout(new))
        return found->existed ? add(changes, changes->path, ARCHIVE_DELETED) : 0;
    if (!found->existed && archive_is_stub(upper, changes->path, name, new))
        return WALK_SKIP;
    found->changed = !found->existed || differs(new, &old) ||
                     (S_ISREG(new->stx_mode) && capability_differs(upper, open->fd[where], name));
    if (!found->changed)
        return 0;
    return add(changes, changes->path, found->existed ? ARCHIVE_MODIFIED : ARCHIVE_ADDED);
}

/* Everything of the upper directory at hand but its directories, whose names stay in *names. */
static int compare_files(struct changes *changes, int upper, const struct open_parts *open,
                         struct archive_names *names)
{
    struct compared *found = malloc(sizeof *found);
    size_t directories = 0;
    int error = found ? 0 : no_memory(changes);
    for (size_t i = 0; error >= 0 && i < names->count; i++) {
        const char *name = names->bytes + names->at[i];
        size_t length = changes->length;
        if (archive_statx(upper, name, &found->new))
            continue; /* it is gone */
        if (S_ISDIR(found->new.stx_mode)) {
            names->at[directories++] = names->at[i];
            continue;
        }
        error = push(changes, name);
        if (!error)
            error = compare(changes, upper, name, open, found);
        pop(changes, length);
    }
    names->count = directories;
    free(found);
    return error < 0 ? error : 0;
}

static int compare_here(struct changes *changes, const struct parts *parts, bool merged,
                        struct archive_names *names)
{
    *names = (struct archive_names){0};
    int upper = open_upper(changes);
    if (upper < 0)
        return upper;
    struct open_parts *open = open_parts(changes, parts);
    int error = open ? archive_names_read(upper, names) : -ENOMEM;
    if (error)
        error = archive_fail(changes->detail, -error, "readdir %s: %s", here(changes),
                             archive_reason(-error));
    if (!error && !merged)
        error = covered(changes, upper, open);
    if (!error)
        error = compare_files(changes, upper, open, names);
    close_parts(open);
    close(upper);
    return error;
}

/* Looks at the directory `name` in the one at hand; found->new tells whether it still is one. */
static int compare_child(struct changes *changes, const struct parts *parts, const char *name,
                         struct compared *found)
{
    int upper = open_upper(changes);
    if (upper < 0)
        return upper;
    struct open_parts *open = open_parts(changes, parts);
    int error = open ? 0 : no_memory(changes);
    found->new.stx_mode = 0;
    if (!error && !archive_statx(upper, name, &found->new) && S_ISDIR(found->new.stx_mode)) {
        size_t length = changes->length;
        error = push(changes, name);
        if (!error)
            error = compare(changes, upper, name, open, found);
        pop(changes, length);
    }
    close_parts(open);
    close(upper);
    return error;
}

static int compare_directory(struct changes *changes, const struct parts *parts, bool merged);

/* A directory below the one at hand: itself, then what is in it. */
static int child(struct changes *changes, const struct parts *parts, const char *name)
{
    struct compared *found = malloc(sizeof *found);
    if (!found)
        return no_memory(changes);
    size_t length = changes->length;
    int error = compare_child(changes, parts, name, found);
    if (!error && S_ISDIR(found->new.stx_mode)) {
        size_t before = changes->count;
        error = push(changes, name);
        if (!error)
            error =
                compare_directory(changes, &found->below, found->was_directory && !found->opaque);
        if (!error && !found->changed && changes->count > before)
            error = add(changes, changes->path, ARCHIVE_MODIFIED);
        pop(changes, length);
    }
    free(found);
    return error < 0 ? error : 0;
}

/* Compares an upper directory with its parts in the layers. None of them is open while what lies
 * below is compared: few descriptors, however deep the tree and however many the layers. */
static int compare_directory(struct changes *changes, const struct parts *parts, bool merged)
{
    struct archive_names names;
    int error = compare_here(changes, parts, merged, &names);
    for (size_t i = 0; !error && i < names.count; i++)
        error = child(changes, parts, names.bytes + names.at[i]);
    archive_names_free(&names);
    return error;
}

static int by_path(const void *left, const void *right, void *text)
{
    const struct change *a = left, *b = right;
    return strcmp((const char *)text + a->path, (const char *)text + b->path);
}

static void report_all(struct changes *changes, archive_change_fn *report, void *ctx)
{
    if (changes->count > 1)
        qsort_r(changes->list, changes->count, sizeof *changes->list, by_path, changes->text);
    for (size_t i = 0; i < changes->count; i++)
        if (report(ctx, changes->text + changes->list[i].path, changes->list[i].kind))
            return;
}

int archive_changes(int upperfd, const int *lowers, size_t lower_count, archive_change_fn *report,
                    void *ctx, char detail[ARCHIVE_DETAIL])
{
    detail[0] = 0;
    if (lower_count > LAYERS_MOST)
        return archive_fail(detail, E2BIG, "more than %d layers", LAYERS_MOST);
    struct parts all = {.count = lower_count};
    for (size_t i = 0; i < lower_count; i++)
        all.layer[i] = (uint16_t)i;
    struct changes *changes = calloc(1, sizeof *changes);
    if (!changes)
        return archive_fail(detail, ENOMEM, "out of memory");
    changes->upperfd = upperfd;
    changes->lowers = lowers;
    changes->detail = detail;
    int error = compare_directory(changes, &all, true);
    if (!error)
        report_all(changes, report, ctx);
    free(changes->list);
    free(changes->text);
    free(changes);
    return error;
}
