/* What spec.c and spec_parts.c share: reading the parts of a message into an arena. */
#ifndef HYPER_SPEC_READ_H
#define HYPER_SPEC_READ_H

#include "spec.h"

/* Where a message is read from, and into. */
struct source_of {
    struct reader *reader;
    struct arena *arena;
};

/* Takes one field into `item`; an unknown tag is malformed. It is called before the first field with
 * NULL, to give what may be absent its empty value. */
typedef void item_fn(struct source_of from, const struct field *field, void *item);

void mark_bad(struct source_of from);
char *text_of(struct source_of from, const struct field *field, size_t most);
/* A number between 0 (or `least`) and `most`. */
int64_t number_of(struct source_of from, const struct field *field, int64_t least, int64_t most);
void add_text(struct source_of from, const struct field *field, struct texts *texts, size_t most,
              size_t bytes);
/* Reads a nested message into one item. */
void read_item(struct source_of from, const struct field *field, item_fn *fn, void *item);
/* Reads a nested message into a new item at the end of a list of at most `most`. */
void *add_item(struct source_of from, const struct field *field, void *items, size_t *count,
               size_t size, size_t most, item_fn *fn);

item_fn root_field, mount_field, join_field, limits_field, sysctl_field, device_field, nic_field,
    process_field;
/* Values that stand where the message says nothing. */
void process_defaults(struct process_spec *process);

#endif
