/* Frames: u32 length, u8 type, u8 zero, u16 code, u64 id, then the payload. See wire.h. */
#include "wire.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

static uint64_t get(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

void wire_init(struct wire *wire, const struct wire_calls *calls, void *context)
{
    *wire = (struct wire){.calls = calls, .context = context};
}

void wire_free(struct wire *wire)
{
    free(wire->body);
    wire->body = NULL;
}

static bool stream_frame(uint8_t type)
{
    return type == FRAME_DATA || type == FRAME_CREDIT || type == FRAME_EOF || type == FRAME_RESET;
}

static bool allowed(uint8_t type, size_t length)
{
    switch (type) {
    case FRAME_REQUEST:
        return length <= HYPER_MAX_MESSAGE;
    case FRAME_DATA:
        return length > WIRE_OFFSET && length <= WIRE_OFFSET + HYPER_MAX_DATA;
    case FRAME_CREDIT:
        return length == WIRE_PAIR;
    case FRAME_EOF:
        return length == WIRE_OFFSET;
    case FRAME_RESET:
        return !length;
    default:
        return false;
    }
}

/* Whether the 16 bytes of a header are what a daemon may say. */
static bool header_good(const uint8_t *head)
{
    uint8_t type = head[4];
    uint64_t id = get(head + 8, 8);
    bool coded = type == FRAME_REQUEST || type == FRAME_RESET;
    return allowed(type, get(head, 4)) && !head[5] && (coded || !get(head + 6, 2)) &&
           (!stream_frame(type) || (id && id <= UINT32_MAX));
}

/* Bytes of header and of the numbers that belong to it. */
static size_t head_size(uint8_t type)
{
    size_t numbers = type == FRAME_CREDIT                         ? WIRE_PAIR
                     : type == FRAME_DATA || type == FRAME_EOF ? WIRE_OFFSET
                                                                  : 0;
    return HYPER_HEADER + numbers;
}

static int run_control(struct wire *wire)
{
    const struct wire_calls *calls = wire->calls;
    uint32_t stream = (uint32_t)wire->id;
    uint64_t second = wire->type == FRAME_CREDIT ? get(wire->head + HYPER_HEADER + 8, 8) : 0;
    switch (wire->type) {
    case FRAME_CREDIT:
        if (wire->offset > second || second > INT64_MAX)
            return -EPROTO;
        return calls->credit(wire->context, stream, wire->offset, second);
    case FRAME_EOF:
        return calls->eof(wire->context, stream, wire->offset);
    case FRAME_RESET:
        return calls->reset(wire->context, stream, wire->code);
    default:
        return calls->request(wire->context, wire->code, wire->id, wire->head, 0);
    }
}

/* The head is complete: either the frame is, or its payload follows. */
static int begin(struct wire *wire)
{
    const uint8_t *head = wire->head;
    size_t numbers = wire->head_length - HYPER_HEADER;
    wire->head_length = 0;
    wire->type = head[4];
    wire->code = (uint16_t)get(head + 6, 2);
    wire->id = get(head + 8, 8);
    wire->offset = numbers ? get(head + HYPER_HEADER, 8) : 0;
    wire->missing = get(head, 4) - numbers;
    if (wire->offset > INT64_MAX - HYPER_MAX_DATA)
        return -EPROTO;
    return wire->missing ? 0 : run_control(wire);
}

/* Takes bytes of the head. Returns how many, or -errno. */
static ssize_t feed_head(struct wire *wire, const uint8_t *data, size_t length)
{
    size_t need = HYPER_HEADER, used = 0;
    for (;;) {
        if (wire->head_length >= HYPER_HEADER)
            need = head_size(wire->head[4]);
        size_t step = need - wire->head_length;
        if (step > length - used)
            step = length - used;
        memcpy(wire->head + wire->head_length, data + used, step);
        wire->head_length += step;
        used += step;
        if (wire->head_length < need)
            return (ssize_t)used;
        if (need == HYPER_HEADER && !header_good(wire->head))
            return -EPROTO;
        if (need == head_size(wire->head[4])) {
            int error = begin(wire);
            return error ? error : (ssize_t)used;
        }
    }
}

static int feed_data(struct wire *wire, const uint8_t *data, size_t length)
{
    uint64_t offset = wire->offset;
    wire->offset += length;
    wire->missing -= length;
    return wire->calls->data(wire->context, (uint32_t)wire->id, offset, data, length);
}

static int feed_request(struct wire *wire, const uint8_t *data, size_t length)
{
    const struct wire_calls *calls = wire->calls;
    if (!wire->body && length == wire->missing) {
        wire->missing = 0;
        return calls->request(wire->context, wire->code, wire->id, data, length);
    }
    if (!wire->body && !(wire->body = malloc(wire->missing)))
        return -ENOMEM;
    memcpy(wire->body + wire->body_length, data, length);
    wire->body_length += length;
    wire->missing -= length;
    if (wire->missing)
        return 0;
    uint8_t *body = wire->body;
    size_t body_length = wire->body_length;
    wire->body = NULL;
    wire->body_length = 0;
    int error = calls->request(wire->context, wire->code, wire->id, body, body_length);
    free(body);
    return error;
}

int wire_feed(struct wire *wire, const uint8_t *data, size_t length)
{
    while (length) {
        if (!wire->missing) {
            ssize_t used = feed_head(wire, data, length);
            if (used < 0)
                return (int)used;
            data += used;
            length -= (size_t)used;
            continue;
        }
        size_t step = wire->missing < length ? wire->missing : length;
        int error = wire->type == FRAME_DATA ? feed_data(wire, data, step)
                                             : feed_request(wire, data, step);
        if (error)
            return error;
        data += step;
        length -= step;
    }
    return 0;
}

uint8_t *wire_number(uint8_t *at, uint64_t number)
{
    for (unsigned i = 0; i < 8; i++)
        at[i] = (uint8_t)(number >> (8 * i));
    return at + 8;
}

uint8_t *wire_header(uint8_t *at, uint8_t type, uint16_t code, uint64_t id, size_t length)
{
    wire_number(at, length | (uint64_t)type << 32 | (uint64_t)code << 48);
    return wire_number(at + 8, id);
}
