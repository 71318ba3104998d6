/* A ring buffer that knows the offsets of its bytes in the stream. See ring.h. */
#include "ring.h"

#include <stdlib.h>
#include <string.h>

#include "messages.h"

enum { FIRST = 4096, STEP = 8 };
_Static_assert(FIRST * STEP * STEP == HYPER_WINDOW, "the ring grows to the window exactly");

size_t ring_held(const struct ring *ring)
{
    return (size_t)(ring->end - ring->begin);
}

/* Splits a run of the ring's memory that begins at an offset and may wrap. */
static int split(const struct ring *ring, uint64_t from, size_t length, struct iovec parts[2])
{
    if (!length)
        return 0;
    size_t at = (size_t)from & (ring->room - 1), first = ring->room - at;
    parts[0] = (struct iovec){ring->data + at, length < first ? length : first};
    if (length <= first)
        return 1;
    parts[1] = (struct iovec){ring->data, length - first};
    return 2;
}

static bool grow(struct ring *ring, size_t room)
{
    struct ring grown = {malloc(room), room, ring->begin, ring->begin};
    if (!grown.data)
        return false;
    struct iovec parts[2];
    int count = split(ring, ring->begin, ring_held(ring), parts);
    for (int i = 0; i < count; i++)
        ring_append(&grown, parts[i].iov_base, parts[i].iov_len);
    free(ring->data);
    *ring = grown;
    return true;
}

int ring_free(struct ring *ring, struct iovec parts[2])
{
    /* Growing when it is half full makes the next read larger, and few streams ever need it. */
    if (ring->room < HYPER_WINDOW && ring_held(ring) >= ring->room / 2)
        grow(ring, ring->room ? ring->room * STEP : FIRST);
    return split(ring, ring->end, ring->room - ring_held(ring), parts);
}

void ring_filled(struct ring *ring, size_t bytes)
{
    ring->end += bytes;
}

int ring_parts(const struct ring *ring, uint64_t from, size_t most, struct iovec parts[2])
{
    size_t length = (size_t)(ring->end - from);
    return split(ring, from, length < most ? length : most, parts);
}

bool ring_append(struct ring *ring, const uint8_t *bytes, size_t length)
{
    size_t need = ring_held(ring) + length, room = ring->room ? ring->room : FIRST;
    while (room < need)
        room *= STEP;
    if (room > ring->room && !grow(ring, room))
        return false;
    struct iovec parts[2];
    int count = split(ring, ring->end, length, parts);
    for (int i = 0; i < count; i++) {
        memcpy(parts[i].iov_base, bytes, parts[i].iov_len);
        bytes += parts[i].iov_len;
    }
    ring->end += length;
    return true;
}

void ring_drop(struct ring *ring, uint64_t upto)
{
    ring->begin = upto;
}

void ring_release(struct ring *ring)
{
    free(ring->data);
    ring->data = NULL;
    ring->room = 0;
    ring->begin = ring->end;
}
