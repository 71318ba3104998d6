/* An overlay's upper directory as a layer (OCI image specification, layer.md): a whiteout,
 * character device 0:0, becomes an empty file .wh.NAME, an opaque directory gets an empty
 * .wh..wh..opq. */
#include "archive_pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "archive_overlay.h"

static int whiteout(struct archive_pack *pack, const struct archive_entry *entry)
{
    char name[ARCHIVE_PATH + 8];
    int before = (int)(entry->name - entry->path);
    snprintf(name, sizeof name, "%.*s.wh.%s", before, entry->path, entry->name);
    return archive_pack_empty(pack, name, 0600);
}

static int opaque(struct archive_pack *pack, const struct archive_entry *entry)
{
    char name[ARCHIVE_PATH + 16];
    snprintf(name, sizeof name, "%s/.wh..wh..opq", entry->path);
    return archive_pack_empty(pack, name, entry->st->stx_mode & 07777);
}

static int diff_entry(void *context, const struct archive_entry *entry, enum archive_walk_when when)
{
    struct archive_pack *pack = context;
    if (when == WALK_AFTER)
        return 0;
    if (overlay_is_whiteout(entry->st))
        return whiteout(pack, entry);
    bool covers = S_ISDIR(entry->st->stx_mode) && overlay_is_opaque(entry->dirfd, entry->name);
    /* /etc itself stays: its owner and mode may be what was changed. */
    if (!covers && strcmp(entry->path, "etc") &&
        archive_is_stub(entry->dirfd, entry->path, entry->name, entry->st))
        return WALK_SKIP;
    int error = archive_pack_file(pack, entry->dirfd, entry->name, entry->path, entry->st);
    return error || !covers ? error : opaque(pack, entry);
}

int archive_diff(int upperfd, int outfd, char detail[ARCHIVE_DETAIL])
{
    detail[0] = 0;
    struct archive_pack *pack = archive_pack_new(outfd, detail);
    if (!pack)
        return -ENOMEM;
    return archive_pack_end(pack, archive_walk(upperfd, false, diff_entry, pack, detail));
}
