/* Fuzz target: any bytes as a daemon's connection. The first byte says how they are split; the split
 * must not matter, and no payload may lead the message reader out of its bounds. */
#include <stdint.h>
#include <stdlib.h>

#include "codec.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t mix(uint64_t *sum, uint64_t value)
{
    return *sum = (*sum ^ value) * UINT64_C(0x100000001b3);
}

/* Reads every field in every way that its bytes allow. */
static void read_message(uint64_t *sum, struct reader *reader)
{
    struct field field;
    while (reader_next(reader, &field)) {
        struct reader inner, copy = *reader;
        mix(sum, field.tag);
        mix(sum, (uint64_t)field_number(&copy, &field));
        char *text = field_text(&copy, &field, 64);
        mix(sum, text ? (uint8_t)*text : 256u);
        free(text);
        field_message(reader, &field, &inner);
        read_message(sum, &inner);
        for (uint32_t i = 0; i < field.length; i++)
            mix(sum, field.data[i]);
    }
    mix(sum, reader->bad);
}

static int on_request(void *sum, uint16_t op, uint64_t id, const uint8_t *payload, size_t length)
{
    struct reader reader;
    mix(sum, op + id);
    reader_init(&reader, payload, length);
    read_message(sum, &reader);
    return 0;
}

static int on_data(void *sum, uint32_t stream, uint64_t offset, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        mix(sum, (stream ^ (offset + i)) << 8 | bytes[i]);
    return 0;
}

static int on_credit(void *sum, uint32_t stream, uint64_t taken, uint64_t limit)
{
    if (taken > limit || !stream)
        abort();
    return mix(sum, stream ^ taken << 20 ^ limit << 40), 0;
}

static int on_eof(void *sum, uint32_t stream, uint64_t offset)
{
    return mix(sum, stream ^ offset << 32), 0;
}

static int on_reset(void *sum, uint32_t stream, uint16_t code)
{
    return mix(sum, stream ^ (uint64_t)code << 32), 0;
}

static const struct wire_calls calls = {on_request, on_data, on_credit, on_eof, on_reset};

static uint64_t run(const uint8_t *data, size_t size, size_t step)
{
    uint64_t sum = 0;
    struct wire wire;
    int error = 0;
    wire_init(&wire, &calls, &sum);
    for (size_t at = 0; at < size && !error; at += step)
        error = wire_feed(&wire, data + at, size - at < step ? size - at : step);
    wire_free(&wire);
    return mix(&sum, (uint64_t)error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    if (run(data + 1, size - 1, size) != run(data + 1, size - 1, (size_t)*data + 1))
        abort();
    return 0;
}
