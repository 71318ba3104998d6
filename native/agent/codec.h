/* Messages as bytes (docs/agent-protocol.md, src/hyperstack/guest/messages.py): reading with every
 * length checked before use, writing into a growing buffer with a bound. No input or output here. */
#ifndef HYPER_CODEC_H
#define HYPER_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A message that is being read. Nothing is copied: fields point into the payload. */
struct reader {
    const uint8_t *at, *end;
    unsigned depth;
    bool bad; /* sticky: something was malformed */
};

struct field {
    uint16_t tag;
    const uint8_t *data;
    uint32_t length;
};

void reader_init(struct reader *reader, const void *data, size_t length);
/* Takes the next field: true and *field, or false at the end and after an error (then reader->bad). */
bool reader_next(struct reader *reader, struct field *field);
/* The values of a field; a wrong shape marks the reader bad and gives 0 or NULL. */
int64_t field_number(struct reader *reader, const struct field *field);
bool field_flag(struct reader *reader, const struct field *field);
/* NUL-terminated copy made with malloc; text of more than `limit` bytes or with NUL inside is bad. */
char *field_text(struct reader *reader, const struct field *field, size_t limit);
/* Begins to read a nested message; too deep is bad. When done: reader->bad |= inner.bad. */
void field_message(struct reader *reader, const struct field *field, struct reader *inner);

/* A message that is being written. A failed allocation or a message over HYPER_MAX_MESSAGE sets
 * `failed`; what follows is ignored. */
struct writer {
    uint8_t *data;
    size_t length, room;
    bool failed;
};

void write_number(struct writer *writer, uint16_t tag, int64_t value); /* 0 is left out */
void write_text(struct writer *writer, uint16_t tag, const char *text); /* NULL and "" are left out */
void write_bytes(struct writer *writer, uint16_t tag, const void *data, size_t length);
size_t write_open(struct writer *writer, uint16_t tag);    /* begins a nested message */
void write_close(struct writer *writer, size_t opened);    /* ends it */
void writer_free(struct writer *writer);

#endif
