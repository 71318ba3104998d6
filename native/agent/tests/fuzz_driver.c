/* fuzz_driver SECONDS [SEED]: calls a libFuzzer target with mutations of well-formed frames, for
 * compilers without libFuzzer. Prints the seed, so that a failure can be had again. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "messages.h"
#include "wire.h"

enum { MOST = 4096, FRAMES = 6 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

/* A run of fields, some of them nested. */
static uint8_t *message(uint8_t *at, unsigned depth)
{
    for (uint32_t left = draw(4); left; left--) {
        uint8_t *head = at;
        at += 8;
        if (depth < 5 && !draw(3))
            at = message(at, depth + 1);
        else
            for (uint32_t i = draw(2) ? 8 : draw(20); i; i--)
                *at++ = (uint8_t)draw(256);
        wire_number(head, draw(30) | (uint64_t)(at - head - 8) << 32);
    }
    return at;
}

static uint8_t *frame(uint8_t *at)
{
    uint8_t *body = at + HYPER_HEADER, *end = body;
    uint8_t type = (uint8_t)(draw(8) ? FRAME_REQUEST + draw(2) * draw(7) : draw(256));
    if (type == FRAME_REQUEST)
        end = message(body, 1);
    else if (type == FRAME_DATA)
        end = wire_number(body, draw(1000)) + 1 + draw(200);
    else if (type == FRAME_CREDIT)
        end = wire_number(wire_number(body, draw(1000)), draw(2000));
    else if (type == FRAME_EOF)
        end = wire_number(body, draw(1000));
    wire_header(at, type, type == FRAME_REQUEST ? (uint16_t)draw(30) : 0, 1 + draw(9),
                (size_t)(end - body));
    return end;
}

static size_t mutate(uint8_t *data, size_t size)
{
    for (uint32_t left = draw(5); left && size; left--) {
        uint32_t at = draw((uint32_t)size);
        switch (draw(4)) {
        case 0:
            data[at] ^= (uint8_t)(1u << draw(8));
            break;
        case 1:
            data[at] = (uint8_t)(draw(2) ? 0xff : draw(256));
            break;
        case 2:
            size = at;
            break;
        default:
            memmove(data + at, data + at + 1, size - at - 1);
            size--;
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    static uint8_t data[MOST * (FRAMES + 1)];
    time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 10);
    unsigned long runs = 0;
    state = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL) * UINT64_C(0x9e3779b97f4a7c15);
    state |= 1;
    printf("seed %#llx\n", (unsigned long long)state);
    fflush(stdout);
    for (; runs % 1024 || time(NULL) < end; runs++) {
        uint8_t *at = data;
        *at++ = (uint8_t)draw(draw(2) ? 4 : 256);
        for (uint32_t left = 1 + draw(FRAMES); left; left--)
            at = frame(at);
        LLVMFuzzerTestOneInput(data, mutate(data, (size_t)(at - data)));
    }
    printf("%lu inputs, no failure\n", runs);
    return 0;
}
