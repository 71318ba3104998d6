/* Tests of what the agent's core does without input or output: messages, frames, rings. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec.h"
#include "messages.h"
#include "ring.h"
#include "wire.h"

static unsigned checks;

#define CHECK(condition)                                                          \
    do {                                                                          \
        checks++;                                                                 \
        if (!(condition)) {                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);       \
            exit(1);                                                              \
        }                                                                         \
    } while (0)

/* Messages */

static void what_is_written_can_be_read(void)
{
    struct writer writer = {0};
    write_number(&writer, 1, -5);
    write_number(&writer, 2, 0);
    size_t opened = write_open(&writer, 3);
    write_text(&writer, 1, "inside");
    write_close(&writer, opened);
    write_text(&writer, 4, "");
    CHECK(!writer.failed);

    struct reader reader, inner;
    struct field field;
    reader_init(&reader, writer.data, writer.length);
    CHECK(reader_next(&reader, &field) && field.tag == 1);
    CHECK(field_number(&reader, &field) == -5);
    CHECK(reader_next(&reader, &field) && field.tag == 3);
    field_message(&reader, &field, &inner);
    CHECK(reader_next(&inner, &field));
    char *text = field_text(&inner, &field, 6);
    CHECK(text && !strcmp(text, "inside"));
    free(text);
    CHECK(!reader_next(&inner, &field) && !inner.bad);
    CHECK(!reader_next(&reader, &field) && !reader.bad);
    writer_free(&writer);
}

static bool malformed(const void *bytes, size_t length)
{
    struct reader reader;
    struct field field;
    reader_init(&reader, bytes, length);
    while (reader_next(&reader, &field))
        continue;
    return reader.bad;
}

static void malformed_messages_are_refused(void)
{
    static const uint8_t cut[] = {1, 0, 0, 0, 8, 0, 0}, zero[] = {1, 0, 1, 0, 0, 0, 0, 0},
                         beyond[] = {1, 0, 0, 0, 1, 0, 0, 0},
                         huge[] = {1, 0, 0, 0, 255, 255, 255, 255, 0};
    CHECK(malformed(cut, sizeof cut));
    CHECK(malformed(zero, sizeof zero));
    CHECK(malformed(beyond, sizeof beyond));
    CHECK(malformed(huge, sizeof huge));
    CHECK(!malformed(NULL, 0));
}

static void wrong_shapes_are_refused(void)
{
    struct reader reader;
    struct field number = {1, (const uint8_t *)"1234567", 7}, nul = {1, (const uint8_t *)"a\0b", 3};
    reader_init(&reader, NULL, 0);
    CHECK(!field_number(&reader, &number) && reader.bad);
    reader_init(&reader, NULL, 0);
    CHECK(!field_text(&reader, &nul, 10) && reader.bad);
    reader_init(&reader, NULL, 0);
    CHECK(!field_text(&reader, &number, 6) && reader.bad);
}

static void messages_nest_four_deep_and_no_deeper(void)
{
    struct reader reader[HYPER_MAX_DEPTH + 1];
    struct field field = {1, (const uint8_t *)"", 0};
    reader_init(&reader[0], NULL, 0);
    for (unsigned i = 1; i <= HYPER_MAX_DEPTH; i++) {
        field_message(&reader[i - 1], &field, &reader[i]);
        CHECK(reader[i].bad == (i == HYPER_MAX_DEPTH));
    }
}

static void a_message_over_the_bound_fails(void)
{
    struct writer writer = {0};
    static uint8_t bytes[1 << 20];
    for (int i = 0; i < 4; i++)
        write_bytes(&writer, 1, bytes, sizeof bytes);
    CHECK(writer.failed && writer.length <= HYPER_MAX_MESSAGE);
    write_close(&writer, write_open(&writer, 2));
    CHECK(writer.failed);
    writer_free(&writer);
}

/* Frames: each call is noted as one line, runs of data as a checksum at their offset. */

struct trace {
    char text[4096];
    size_t length;
    uint64_t data_sum, data_end;
};

static int note(struct trace *trace, const char *what, uint64_t a, uint64_t b, uint64_t c)
{
    trace->length += (size_t)snprintf(trace->text + trace->length,
                                      sizeof trace->text - trace->length, "%s %llu %llu %llu\n",
                                      what, (unsigned long long)a, (unsigned long long)b,
                                      (unsigned long long)c);
    return 0;
}

static int t_request(void *context, uint16_t op, uint64_t id, const uint8_t *payload, size_t length)
{
    return note(context, "request", op, id, length + (length ? payload[length - 1] : 0u));
}

static int t_data(void *context, uint32_t stream, uint64_t offset, const uint8_t *bytes,
                  size_t length)
{
    struct trace *trace = context;
    for (size_t i = 0; i < length; i++)
        trace->data_sum += (offset + i + 1) * bytes[i] * stream;
    trace->data_end = offset + length;
    return 0;
}

static int t_credit(void *context, uint32_t stream, uint64_t taken, uint64_t limit)
{
    return note(context, "credit", stream, taken, limit);
}

static int t_eof(void *context, uint32_t stream, uint64_t offset)
{
    return note(context, "eof", stream, offset, 0);
}

static int t_reset(void *context, uint32_t stream, uint16_t code)
{
    return note(context, "reset", stream, code, 0);
}

static const struct wire_calls calls = {t_request, t_data, t_credit, t_eof, t_reset};

static size_t sample(uint8_t *at)
{
    uint8_t *end = wire_header(at, FRAME_REQUEST, OP_PING, 7, 0);
    end = wire_header(end, FRAME_REQUEST, OP_EXEC, 8, 5);
    memcpy(end, "hello", 5);
    end = wire_number(wire_header(end + 5, FRAME_DATA, 0, 4, 13), 100);
    memcpy(end, "bytes", 5);
    end = wire_header(end + 5, FRAME_CREDIT, 0, 5, 16);
    end = wire_number(wire_number(end, 10), 20);
    end = wire_number(wire_header(end, FRAME_EOF, 0, 4, 8), 105);
    end = wire_header(end, FRAME_RESET, ECANCELED, 6, 0);
    return (size_t)(end - at);
}

static struct trace trace_of(const uint8_t *bytes, size_t length, size_t step, int expected)
{
    struct trace trace = {0};
    struct wire wire;
    int error = 0;
    wire_init(&wire, &calls, &trace);
    for (size_t at = 0; at < length && !error; at += step)
        error = wire_feed(&wire, bytes + at, length - at < step ? length - at : step);
    wire_free(&wire);
    CHECK(error == expected);
    return trace;
}

static void any_split_has_the_same_effect(void)
{
    uint8_t bytes[512];
    size_t length = sample(bytes);
    struct trace whole = trace_of(bytes, length, length, 0);
    CHECK(!strcmp(whole.text, "request 22 7 0\nrequest 4 8 116\ncredit 5 10 20\neof 4 105 0\n"
                              "reset 6 125 0\n"));
    CHECK(whole.data_end == 105);
    for (size_t step = 1; step < length; step++) {
        struct trace split = trace_of(bytes, length, step, 0);
        CHECK(!strcmp(split.text, whole.text));
        CHECK(split.data_sum == whole.data_sum && split.data_end == whole.data_end);
    }
}

/* A frame of 16 bytes of header and 16 of payload is refused for each reason there is. */
static void refuses(uint8_t type, uint8_t zero, uint16_t code, uint64_t id, size_t length,
                    uint64_t first, uint64_t second)
{
    uint8_t bytes[32];
    wire_number(wire_number(wire_header(bytes, type, code, id, length), first), second);
    bytes[5] = zero;
    trace_of(bytes, sizeof bytes, sizeof bytes, -EPROTO);
    trace_of(bytes, sizeof bytes, 1, -EPROTO);
}

static void what_the_protocol_does_not_allow_ends_the_connection(void)
{
    refuses(FRAME_HELLO, 0, 1, 1, 0, 0, 0);
    refuses(FRAME_REPLY, 0, 0, 1, 0, 0, 0);
    refuses(FRAME_EVENT, 0, 0, 1, 0, 0, 0);
    refuses(0, 0, 0, 1, 0, 0, 0);
    refuses(99, 0, 0, 1, 0, 0, 0);
    refuses(FRAME_REQUEST, 1, OP_PING, 1, 0, 0, 0);
    refuses(FRAME_REQUEST, 0, OP_PING, 1, HYPER_MAX_MESSAGE + 1, 0, 0);
    refuses(FRAME_DATA, 0, 0, 1, 8, 0, 0);
    refuses(FRAME_DATA, 0, 0, 1, HYPER_MAX_DATA + 9, 0, 0);
    refuses(FRAME_DATA, 0, 0, 0, 16, 0, 0);
    refuses(FRAME_DATA, 0, 0, UINT64_C(1) << 32, 16, 0, 0);
    refuses(FRAME_DATA, 0, 3, 1, 16, 0, 0);
    refuses(FRAME_DATA, 0, 0, 1, 16, UINT64_MAX, 0);
    refuses(FRAME_CREDIT, 0, 0, 1, 15, 0, 0);
    refuses(FRAME_CREDIT, 0, 0, 1, 16, 2, 1);
    refuses(FRAME_CREDIT, 0, 0, 1, 16, 0, UINT64_MAX);
    refuses(FRAME_EOF, 0, 0, 1, 9, 0, 0);
    refuses(FRAME_RESET, 0, 1, 1, 1, 0, 0);
}

/* Rings */

static void fill(struct ring *ring, size_t length)
{
    uint8_t bytes[8192];
    while (length) {
        size_t step = length < sizeof bytes ? length : sizeof bytes;
        for (size_t i = 0; i < step; i++)
            bytes[i] = (uint8_t)((ring->end + i) * 31 >> 3);
        CHECK(ring_append(ring, bytes, step));
        length -= step;
    }
}

static void verify(const struct ring *ring, uint64_t from)
{
    struct iovec parts[2];
    uint64_t at = from;
    int count = ring_parts(ring, from, HYPER_WINDOW, parts);
    for (int i = 0; i < count; i++)
        for (size_t j = 0; j < parts[i].iov_len; j++, at++)
            CHECK(((uint8_t *)parts[i].iov_base)[j] == (uint8_t)(at * 31 >> 3));
    CHECK(at == ring->end);
}

static void a_ring_keeps_bytes_by_their_offset_while_it_grows_and_wraps(void)
{
    struct ring ring = {0};
    struct iovec parts[2];
    for (int i = 0; i < 400; i++) {
        size_t space = HYPER_WINDOW - ring_held(&ring);
        size_t length = (size_t)(i * 7919) % 9001;
        fill(&ring, length < space ? length : space);
        verify(&ring, ring.begin);
        ring_drop(&ring, ring.begin + (ring.end - ring.begin) * (uint64_t)(i % 5) / 7);
        verify(&ring, ring.begin);
    }
    fill(&ring, HYPER_WINDOW - ring_held(&ring));
    CHECK(!ring_free(&ring, parts) && ring_held(&ring) == HYPER_WINDOW);
    verify(&ring, ring.begin + 1000);
    ring_release(&ring);
    CHECK(!ring_held(&ring));
}

static void a_ring_starts_small_and_offers_all_that_is_free(void)
{
    struct ring ring = {0};
    struct iovec parts[2];
    CHECK(ring_free(&ring, parts) == 1 && parts[0].iov_len == 4096);
    ring_filled(&ring, 4096);
    CHECK(ring_free(&ring, parts) == 1 && parts[0].iov_len == 32768 - 4096);
    ring_drop(&ring, 4096);
    CHECK(ring_free(&ring, parts) == 2);
    CHECK(parts[0].iov_len + parts[1].iov_len == 32768);
    ring_release(&ring);
}

int main(void)
{
    what_is_written_can_be_read();
    malformed_messages_are_refused();
    wrong_shapes_are_refused();
    messages_nest_four_deep_and_no_deeper();
    a_message_over_the_bound_fails();
    any_split_has_the_same_effect();
    what_the_protocol_does_not_allow_ends_the_connection();
    a_ring_keeps_bytes_by_their_offset_while_it_grows_and_wraps();
    a_ring_starts_small_and_offers_all_that_is_free();
    printf("agent core: %u checks passed\n", checks);
    return 0;
}
