/* A bump allocator. See arena.h. */
#include "arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 8 << 10, FIRST_ITEMS = 8 };

struct arena_block {
    struct arena_block *next;
    size_t used, room;
    alignas(max_align_t) uint8_t bytes[];
};

static struct arena_block *add_block(struct arena *arena, size_t bytes)
{
    size_t room = bytes > BLOCK ? bytes : BLOCK;
    struct arena_block *block = calloc(1, sizeof *block + room);
    if (!block)
        return NULL;
    *block = (struct arena_block){.next = arena->blocks, .room = room};
    arena->blocks = block;
    return block;
}

void *arena_take(struct arena *arena, size_t bytes)
{
    bytes = (bytes + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    struct arena_block *block = arena->blocks;
    if (!block || bytes > block->room - block->used)
        block = add_block(arena, bytes);
    if (!block)
        return NULL;
    void *taken = block->bytes + block->used;
    block->used += bytes;
    return taken;
}

void *arena_grow(struct arena *arena, void *items, size_t count, size_t size)
{
    /* The room is always FIRST_ITEMS times a power of two, so that the count says when it is full. */
    if (count && (count < FIRST_ITEMS || (count & (count - 1))))
        return items;
    void *grown = arena_take(arena, (count ? 2 * count : FIRST_ITEMS) * size);
    if (grown && count)
        memcpy(grown, items, count * size);
    return grown;
}

void arena_free(struct arena *arena)
{
    while (arena->blocks) {
        struct arena_block *block = arena->blocks;
        arena->blocks = block->next;
        free(block);
    }
}
