/* Streams (docs/agent-protocol.md): runs of bytes between descriptors of the guest and the daemon.
 *
 * An output is read from a descriptor, kept in a ring until the daemon has taken it, and sent again
 * on a new connection. An input is received into a ring and written to a descriptor. Both belong to
 * whoever made them (a process, an archive operation), until he frees them. */
#ifndef HYPER_STREAM_H
#define HYPER_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring.h"

struct stream {
    struct stream *next; /* in its bucket of the table */
    uint32_t id;         /* 0: not in the table, nobody can ask for it */
    bool is_output;
    bool of_link; /* ends with the connection */
};

struct output {
    struct stream stream;
    struct ring ring; /* given up before begin, read before end */
    int fd;           /* -1: not yet opened, or at its end */
    uint64_t next;    /* first byte that this connection was not given */
    uint64_t limit;   /* what it may be given */
    bool begun;       /* the daemon has spoken on this connection */
    bool is_pipe, readable, hung_up, draining, widened;
    bool discard; /* the daemon wants no more of it */
    bool final;   /* all was read: ring.end is the end of the stream */
    bool end_sent;
    uint32_t retry; /* timer, when there was no memory */
    struct output *earlier, *later; /* in the connection's list of who has something to send */
    bool queued;
    /* The descriptor is at its end: the owner says output_finish or output_fail. Without it the
     * stream finishes by itself. */
    void (*at_end)(void *context);
    /* Nothing more will be asked of the stream: it was taken to its end (error 0), or the daemon
     * or the connection gave it up. May free the output. Without it nothing happens. */
    void (*over)(void *context, int error);
    void *context;
};

struct input {
    struct stream stream;
    struct ring ring; /* written before begin, received before end */
    int fd;
    uint64_t granted; /* limit of the last CREDIT */
    bool announced;   /* the daemon may send */
    bool eof;         /* ring.end is the end of the stream */
    bool closed;      /* nothing more is written */
    /* Nothing more is written: all was (error 0), nobody reads (EPIPE), or the daemon or the
     * connection gave it up. May free the input. */
    void (*over)(void *context, int error);
    void *context;
};

/* NULL with errno EEXIST (the id is in use) or ENOMEM. Id 0: an output that is discarded. */
struct output *output_new(uint32_t id, bool of_link);
int output_open(struct output *output, int fd); /* owns fd also on error; 0 or -errno */
void output_drain(struct output *output); /* the end is where nothing more can be read at once */
void output_finish(struct output *output);
void output_fail(struct output *output, int error);
void output_free(struct output *output);

struct input *input_new(uint32_t id, bool of_link);
int input_open(struct input *input, int fd); /* owns fd also on error */
void input_announce(struct input *input); /* tells the daemon from where and how much it may send */
void input_free(struct input *input);

/* What the connection asks: whether there is something to send, and the frame. Returns how many
 * bytes follow the header (at `parts`), or -1 if there is nothing. */
bool output_sendable(const struct output *output);
enum { OUTPUT_HEAD = 24 };
int64_t output_frame(struct output *output, uint8_t head[OUTPUT_HEAD], struct iovec parts[2]);

/* Frames of the daemon: 0 or -errno, then the connection is closed. */
int streams_data(uint32_t id, uint64_t offset, const uint8_t *bytes, size_t length);
int streams_credit(uint32_t id, uint64_t taken, uint64_t limit);
int streams_eof(uint32_t id, uint64_t offset);
int streams_reset(uint32_t id, uint16_t code);
void streams_disconnected(void);

/* Between the files of the streams. */
bool stream_register(struct stream *stream);
void stream_forget(struct stream *stream);
void stream_send_reset(uint32_t id, int error);
void output_credit(struct output *output, uint64_t taken, uint64_t limit);
void output_reset(struct output *output, int error);
void output_disconnected(struct output *output);
bool stream_early_credit(uint32_t id, uint64_t *taken, uint64_t *limit);
int input_data(struct input *input, uint64_t offset, const uint8_t *bytes, size_t length);
int input_eof(struct input *input, uint64_t offset);
void input_reset(struct input *input, int error);
void input_disconnected(struct input *input);

#endif
