/* The bytes of a stream that are here: from `begin` to `end`, both offsets of the stream. At most
 * HYPER_WINDOW of them; memory is taken as it is needed. */
#ifndef HYPER_RING_H
#define HYPER_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct ring {
    uint8_t *data;
    size_t room; /* a power of two, 0: nothing allocated */
    uint64_t begin, end;
};

size_t ring_held(const struct ring *ring);
/* Free memory to read into, one or two parts; 0 parts when the window is full or memory is out
 * (then ring_held tells which). Bytes put there count once ring_filled is called. */
int ring_free(struct ring *ring, struct iovec parts[2]);
void ring_filled(struct ring *ring, size_t bytes);
/* The bytes from offset `from`, at most `most`, in one or two parts. */
int ring_parts(const struct ring *ring, uint64_t from, size_t most, struct iovec parts[2]);
bool ring_append(struct ring *ring, const uint8_t *bytes, size_t length); /* false: no memory */
void ring_drop(struct ring *ring, uint64_t upto); /* forgets what is before `upto` */
void ring_release(struct ring *ring); /* frees the memory; offsets stay */

#endif
