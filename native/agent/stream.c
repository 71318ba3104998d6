/* The table of streams, and frames of the daemon on their way to them. See stream.h. */
#include "stream.h"

#include <errno.h>
#include <string.h>

#include "link.h"
#include "messages.h"
#include "wire.h"

enum { BUCKETS = 1024, EARLY = 256 };

/* CREDIT for a stream that does not exist yet: the daemon opens its end first and asks then. */
struct early {
    uint32_t id;
    uint64_t taken, limit;
};

static struct stream *table[BUCKETS];
static struct early early[EARLY];
static unsigned early_next;

static struct stream **find(uint32_t id)
{
    struct stream **at = &table[id % BUCKETS];
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

bool stream_register(struct stream *stream)
{
    struct stream **at = find(stream->id);
    if (*at)
        return false;
    *at = stream;
    return true;
}

void stream_forget(struct stream *stream)
{
    struct stream **at = find(stream->id);
    if (stream->id && *at == stream)
        *at = stream->next;
}

void stream_send_reset(uint32_t id, int error)
{
    uint8_t head[HYPER_HEADER];
    wire_header(head, FRAME_RESET, (uint16_t)error, id, 0);
    link_send(head, sizeof head, NULL, 0);
}

static struct early *find_early(uint32_t id)
{
    for (unsigned i = 0; i < EARLY; i++)
        if (early[i].id == id)
            return &early[i];
    return NULL;
}

static void note_early(uint32_t id, uint64_t taken, uint64_t limit)
{
    struct early *entry = find_early(id);
    if (!entry) {
        entry = &early[early_next++ % EARLY];
        if (entry->id)
            stream_send_reset(entry->id, ENOENT);
    }
    *entry = (struct early){id, taken, limit};
}

bool stream_early_credit(uint32_t id, uint64_t *taken, uint64_t *limit)
{
    struct early *entry = id ? find_early(id) : NULL;
    if (!entry)
        return false;
    *taken = entry->taken;
    *limit = entry->limit;
    entry->id = 0;
    return true;
}

/* Frames */

int streams_data(uint32_t id, uint64_t offset, const uint8_t *bytes, size_t length)
{
    struct stream *stream = *find(id);
    if (!stream)
        return 0; /* on its way when the stream ended */
    return stream->is_output ? -EPROTO : input_data((struct input *)stream, offset, bytes, length);
}

int streams_credit(uint32_t id, uint64_t taken, uint64_t limit)
{
    struct stream *stream = *find(id);
    if (!stream)
        note_early(id, taken, limit);
    else if (stream->is_output)
        output_credit((struct output *)stream, taken, limit);
    else
        return -EPROTO;
    return 0;
}

int streams_eof(uint32_t id, uint64_t offset)
{
    struct stream *stream = *find(id);
    if (!stream)
        return 0;
    return stream->is_output ? -EPROTO : input_eof((struct input *)stream, offset);
}

int streams_reset(uint32_t id, uint16_t code)
{
    struct stream *stream = *find(id);
    struct early *entry = find_early(id);
    if (entry)
        entry->id = 0;
    if (stream && stream->is_output)
        output_reset((struct output *)stream, code ? code : ECANCELED);
    else if (stream)
        input_reset((struct input *)stream, code ? code : ECANCELED);
    return 0;
}

/* The connection is gone: nothing was asked for any more. A stream of the connection tells its
 * owner, who may free this and other streams, so each bucket is walked anew after that. */
void streams_disconnected(void)
{
    memset(early, 0, sizeof early);
    for (unsigned i = 0; i < BUCKETS; i++) {
        struct stream *stream = table[i];
        while (stream) {
            bool again = stream->of_link;
            if (stream->is_output)
                output_disconnected((struct output *)stream);
            else
                input_disconnected((struct input *)stream);
            stream = again ? table[i] : stream->next;
        }
    }
}
