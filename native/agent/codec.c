/* Messages as bytes: a run of fields, each u16 tag, u16 zero, u32 length (little endian) and then
 * the bytes. See docs/agent-protocol.md and codec.h. */
#include "codec.h"

#include <stdlib.h>
#include <string.h>

#include "messages.h"

enum { FIELD_HEADER = 8, NUMBER = 8, FIRST_ROOM = 256 };

static uint64_t get(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

/* Reading */

void reader_init(struct reader *reader, const void *data, size_t length)
{
    static const uint8_t nothing[1];
    reader->at = length ? data : nothing;
    reader->end = reader->at + length;
    reader->depth = 1;
    reader->bad = length > HYPER_MAX_MESSAGE;
}

bool reader_next(struct reader *reader, struct field *field)
{
    size_t left = (size_t)(reader->end - reader->at);
    if (reader->bad || !left)
        return false;
    if (left < FIELD_HEADER || get(reader->at + 2, 2) ||
        get(reader->at + 4, 4) > left - FIELD_HEADER) {
        reader->bad = true;
        return false;
    }
    field->tag = (uint16_t)get(reader->at, 2);
    field->length = (uint32_t)get(reader->at + 4, 4);
    field->data = reader->at + FIELD_HEADER;
    reader->at = field->data + field->length;
    return true;
}

int64_t field_number(struct reader *reader, const struct field *field)
{
    if (field->length != NUMBER) {
        reader->bad = true;
        return 0;
    }
    return (int64_t)get(field->data, NUMBER);
}

bool field_flag(struct reader *reader, const struct field *field)
{
    return field_number(reader, field) != 0;
}

char *field_text(struct reader *reader, const struct field *field, size_t limit)
{
    if (field->length > limit || memchr(field->data, 0, field->length)) {
        reader->bad = true;
        return NULL;
    }
    char *text = malloc((size_t)field->length + 1);
    if (!text) {
        reader->bad = true;
        return NULL;
    }
    memcpy(text, field->data, field->length);
    text[field->length] = 0;
    return text;
}

void field_message(struct reader *reader, const struct field *field, struct reader *inner)
{
    reader_init(inner, field->data, field->length);
    inner->depth = reader->depth + 1;
    if (inner->depth > HYPER_MAX_DEPTH)
        inner->bad = true;
}

/* Writing */

static uint8_t *claim(struct writer *writer, size_t bytes)
{
    if (writer->failed || bytes > HYPER_MAX_MESSAGE - writer->length) {
        writer->failed = true;
        return NULL;
    }
    size_t need = writer->length + bytes, room = writer->room ? writer->room : FIRST_ROOM;
    while (room < need)
        room *= 2;
    if (room > writer->room) {
        uint8_t *grown = realloc(writer->data, room);
        if (!grown) {
            writer->failed = true;
            return NULL;
        }
        writer->data = grown;
        writer->room = room;
    }
    uint8_t *at = writer->data + writer->length;
    writer->length = need;
    return at;
}

static uint8_t *claim_field(struct writer *writer, uint16_t tag, size_t length)
{
    if (length > HYPER_MAX_MESSAGE) {
        writer->failed = true;
        return NULL;
    }
    uint8_t *at = claim(writer, FIELD_HEADER + length);
    if (!at)
        return NULL;
    put(at, tag, 4);
    put(at + 4, length, 4);
    return at + FIELD_HEADER;
}

void write_number(struct writer *writer, uint16_t tag, int64_t value)
{
    if (!value)
        return;
    uint8_t *at = claim_field(writer, tag, NUMBER);
    if (at)
        put(at, (uint64_t)value, NUMBER);
}

void write_text(struct writer *writer, uint16_t tag, const char *text)
{
    if (text)
        write_bytes(writer, tag, text, strlen(text));
}

void write_bytes(struct writer *writer, uint16_t tag, const void *data, size_t length)
{
    if (!length)
        return;
    uint8_t *at = claim_field(writer, tag, length);
    if (at)
        memcpy(at, data, length);
}

size_t write_open(struct writer *writer, uint16_t tag)
{
    size_t opened = writer->length;
    claim_field(writer, tag, 0);
    return opened;
}

void write_close(struct writer *writer, size_t opened)
{
    if (!writer->failed)
        put(writer->data + opened + 4, writer->length - opened - FIELD_HEADER, 4);
}

void writer_free(struct writer *writer)
{
    free(writer->data);
    *writer = (struct writer){0};
}
