/* Output streams: from a descriptor of the guest to the daemon, kept until taken. See stream.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "link.h"
#include "loop.h"
#include "messages.h"
#include "stream.h"
#include "wire.h"

enum {
    EVENTS = EPOLLIN | EPOLLET,
    RETRY_MS = 50,
    DISCARD_ROUNDS = 16,
    PIPE_BYTES = 1 << 20,
};

struct output *output_new(uint32_t id, bool of_link)
{
    struct output *output = calloc(1, sizeof *output);
    if (!output)
        return NULL;
    output->fd = -1;
    output->stream = (struct stream){.id = id, .is_output = true, .of_link = of_link};
    output->discard = !id;
    if (id && !stream_register(&output->stream)) {
        free(output);
        errno = EEXIST;
        return NULL;
    }
    return output;
}

static void close_source(struct output *output)
{
    if (output->fd < 0)
        return;
    loop_remove(output->fd);
    close(output->fd);
    output->fd = -1;
    output->readable = false;
}

void output_free(struct output *output)
{
    bool open_there = output->begun && !output->discard &&
                      !(output->end_sent && output->ring.begin == output->ring.end);
    link_forget(output);
    if (open_there)
        stream_send_reset(output->stream.id, ECANCELED);
    close_source(output);
    if (output->retry)
        loop_cancel(output->retry);
    stream_forget(&output->stream);
    ring_release(&output->ring);
    free(output);
    link_flush();
}

/* Sending */

bool output_sendable(const struct output *output)
{
    if (!output->begun || output->discard)
        return false;
    uint64_t end = output->ring.end < output->limit ? output->ring.end : output->limit;
    return output->next < end ||
           (output->final && output->next == output->ring.end && !output->end_sent);
}

int64_t output_frame(struct output *output, uint8_t head[OUTPUT_HEAD], struct iovec parts[2])
{
    if (!output_sendable(output))
        return -1;
    uint64_t left = output->limit > output->next ? output->limit - output->next : 0;
    size_t most = left < HYPER_MAX_DATA ? (size_t)left : HYPER_MAX_DATA, length = 0;
    int count = ring_parts(&output->ring, output->next, most, parts);
    for (int i = 0; i < count; i++)
        length += parts[i].iov_len;
    bool is_end = !length;
    uint8_t *at = wire_header(head, is_end ? FRAME_EOF : FRAME_DATA, 0, output->stream.id,
                              length + WIRE_OFFSET);
    wire_number(at, output->next);
    output->end_sent = is_end;
    return (int64_t)length;
}

/* Reading */

static void at_end(struct output *output)
{
    close_source(output);
    if (output->at_end)
        output->at_end(output->context);
    else
        output_finish(output);
}

static void discard_all(struct output *output)
{
    static uint8_t scratch[65536];
    for (size_t i = 0; i < DISCARD_ROUNDS; i++) {
        ssize_t got = read(output->fd, scratch, sizeof scratch);
        if (got > 0 || (got < 0 && errno == EINTR))
            continue;
        if (got < 0 && errno == EAGAIN && !output->draining)
            output->readable = false;
        else
            at_end(output);
        return;
    }
    loop_change(output->fd, EVENTS); /* go on after the others */
}

static void pull(struct output *output);

static void retry(void *context)
{
    struct output *output = context;
    output->retry = 0;
    pull(output);
}

enum step { AGAIN, LATER, ENDED };

/* Reads once. After ENDED the output may be gone. */
static enum step read_some(struct output *output, const struct iovec *parts, int count)
{
    size_t room = parts[0].iov_len + (count > 1 ? parts[1].iov_len : 0);
    ssize_t got = readv(output->fd, parts, count);
    if (got > 0) {
        ring_filled(&output->ring, (size_t)got);
        /* A pipe that gives less is empty, and says so when that changes. A terminal gives what it
         * likes; and after a hang-up nothing more is said. */
        if ((size_t)got == room || !output->is_pipe || output->hung_up)
            return AGAIN;
        output->readable = false;
        return LATER;
    }
    if (got < 0 && errno == EINTR)
        return AGAIN;
    if (got < 0 && errno == EAGAIN && !output->draining) {
        output->readable = false;
        return LATER;
    }
    at_end(output); /* EIO is how a terminal says that its last user is gone */
    return ENDED;
}

/* The window is full: more will be read when some is taken. Or memory is out. */
static void no_room(struct output *output)
{
    if (ring_held(&output->ring) < HYPER_WINDOW && !output->retry)
        output->retry = loop_after(RETRY_MS, retry, output);
    if (output->is_pipe && !output->widened) {
        fcntl(output->fd, F_SETPIPE_SZ, PIPE_BYTES); /* much comes: fewer switches */
        output->widened = true;
    }
}

/* Takes what the descriptor has, as far as there is room. The output may be gone after it. */
static void pull(struct output *output)
{
    struct iovec parts[2];
    enum step step = AGAIN;
    while (output->fd >= 0 && output->readable && step == AGAIN) {
        if (output->discard) {
            discard_all(output);
            return;
        }
        int count = ring_free(&output->ring, parts);
        if (!count) {
            no_room(output);
            break;
        }
        step = read_some(output, parts, count);
        if (step == ENDED)
            return;
    }
    link_offer(output);
}

static void on_event(void *context, uint32_t events)
{
    struct output *output = context;
    output->readable = true;
    output->hung_up |= (events & (EPOLLHUP | EPOLLERR)) != 0;
    pull(output);
    link_flush();
}

void output_drain(struct output *output)
{
    output->draining = output->readable = true;
    pull(output);
    link_flush();
}

void output_finish(struct output *output)
{
    output->final = true;
    link_offer(output);
    link_flush();
}

static void over(struct output *output, int error)
{
    if (output->over)
        output->over(output->context, error);
}

void output_fail(struct output *output, int error)
{
    link_forget(output);
    close_source(output);
    if (!output->discard)
        stream_send_reset(output->stream.id, error);
    output->discard = true;
    ring_release(&output->ring);
    over(output, error);
    link_flush();
}

/* What the daemon says */

static void refuse(struct output *output, int error)
{
    link_forget(output);
    output->begun = false;
    stream_send_reset(output->stream.id, error);
}

static void apply(struct output *output, uint64_t taken, uint64_t limit)
{
    const struct ring *ring = &output->ring;
    if (taken < ring->begin || taken > (output->begun ? output->next : ring->end)) {
        refuse(output, EINVAL);
        return;
    }
    if (!output->begun) {
        output->begun = true;
        output->next = taken;
        output->limit = limit;
    } else if (limit > output->limit) {
        output->limit = limit;
    }
    ring_drop(&output->ring, taken);
    if (output->end_sent && taken == ring->end) {
        ring_release(&output->ring);
        over(output, 0);
        return;
    }
    pull(output);
}

void output_credit(struct output *output, uint64_t taken, uint64_t limit)
{
    if (output->discard)
        stream_send_reset(output->stream.id, ECANCELED);
    else
        apply(output, taken, limit);
}

int output_open(struct output *output, int fd)
{
    struct stat status;
    output->fd = fd;
    output->is_pipe = !fstat(fd, &status) && S_ISFIFO(status.st_mode);
    int error = fcntl(fd, F_SETFL, O_NONBLOCK) ? -errno : loop_add(fd, EVENTS, on_event, output);
    uint64_t taken, limit;
    if (error)
        close_source(output);
    else if (stream_early_credit(output->stream.id, &taken, &limit))
        output_credit(output, taken, limit);
    return error;
}

void output_reset(struct output *output, int error)
{
    link_forget(output);
    output->begun = false;
    output->discard = true;
    ring_release(&output->ring);
    if (output->over)
        over(output, error);
    else
        pull(output);
}

void output_disconnected(struct output *output)
{
    output->begun = output->end_sent = output->queued = false;
    output->earlier = output->later = NULL;
    if (!output->stream.of_link)
        return;
    stream_forget(&output->stream);
    over(output, ENOTCONN);
}
