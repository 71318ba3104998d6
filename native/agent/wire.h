/* Frames (docs/agent-protocol.md): the parser of what the daemon sends and the headers of what the
 * agent sends. No input or output here: any split of the same bytes has the same effect. */
#ifndef HYPER_WIRE_H
#define HYPER_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "messages.h"

enum { WIRE_PAIR = 16, WIRE_OFFSET = 8, WIRE_HEAD_MOST = HYPER_HEADER + WIRE_PAIR };

/* What the parser calls. Each returns 0 or -errno, which ends the parsing with that error. Payload
 * and bytes are valid during the call only. Stream ids are 1 to 2^32 - 1, offsets below 2^63. */
struct wire_calls {
    int (*request)(void *context, uint16_t op, uint64_t id, const uint8_t *payload, size_t length);
    /* A run of a stream's bytes; a DATA frame comes in as many as it was split into. */
    int (*data)(void *context, uint32_t stream, uint64_t offset, const uint8_t *bytes,
                size_t length);
    int (*credit)(void *context, uint32_t stream, uint64_t taken, uint64_t limit);
    int (*eof)(void *context, uint32_t stream, uint64_t offset);
    int (*reset)(void *context, uint32_t stream, uint16_t code);
};

struct wire {
    const struct wire_calls *calls;
    void *context;
    uint8_t head[WIRE_HEAD_MOST];
    size_t head_length;
    uint8_t type; /* of the frame whose payload is under way, 0: none */
    uint16_t code;
    uint64_t id, offset;
    size_t missing; /* bytes of payload still to come */
    uint8_t *body;  /* a request's payload in parts */
    size_t body_length;
};

void wire_init(struct wire *wire, const struct wire_calls *calls, void *context);
void wire_free(struct wire *wire);
/* Takes bytes. 0, -EPROTO for what the protocol does not allow, -ENOMEM, or a call's error; after an
 * error the connection is over. */
int wire_feed(struct wire *wire, const uint8_t *data, size_t length);

/* Writes a header at `at` (HYPER_HEADER bytes) and returns what follows it. */
uint8_t *wire_header(uint8_t *at, uint8_t type, uint16_t code, uint64_t id, size_t length);
uint8_t *wire_number(uint8_t *at, uint64_t number); /* 8 bytes, little endian */

#endif
