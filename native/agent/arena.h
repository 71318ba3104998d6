/* Memory that is taken piece by piece and given back at once: what a message is read into. */
#ifndef HYPER_ARENA_H
#define HYPER_ARENA_H

#include <stddef.h>

struct arena {
    struct arena_block *blocks;
};

/* Zeroed memory for any type, NULL when there is none. */
void *arena_take(struct arena *arena, size_t bytes);
/* Room for one more element behind `count` of `size` bytes: the array or a larger copy of it, NULL
 * when there is no memory. Grow an array by this function alone, from NULL and 0. */
void *arena_grow(struct arena *arena, void *items, size_t count, size_t size);
void arena_free(struct arena *arena);

#endif
