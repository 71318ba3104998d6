/* Input streams: from the daemon to a descriptor of the guest. What was received counts as taken: it
 * waits here until the descriptor takes it, over any number of connections. See stream.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "link.h"
#include "loop.h"
#include "messages.h"
#include "stream.h"
#include "wire.h"

struct input *input_new(uint32_t id, bool of_link)
{
    struct input *input = calloc(1, sizeof *input);
    if (!input)
        return NULL;
    input->fd = -1;
    input->stream = (struct stream){.id = id, .of_link = of_link};
    if (!stream_register(&input->stream)) {
        free(input);
        errno = EEXIST;
        return NULL;
    }
    return input;
}

static void close_target(struct input *input)
{
    if (input->fd < 0)
        return;
    loop_remove(input->fd);
    close(input->fd);
    input->fd = -1;
}

void input_free(struct input *input)
{
    if (input->announced && !input->eof && !input->closed)
        stream_send_reset(input->stream.id, ECANCELED);
    close_target(input);
    stream_forget(&input->stream);
    ring_release(&input->ring);
    free(input);
    link_flush();
}

static void send_credit(struct input *input)
{
    uint8_t head[HYPER_HEADER + WIRE_PAIR];
    uint64_t limit = input->eof ? input->ring.end : input->ring.begin + HYPER_WINDOW;
    uint8_t *at = wire_header(head, FRAME_CREDIT, 0, input->stream.id, WIRE_PAIR);
    wire_number(wire_number(at, input->ring.end), limit);
    if (!link_send(head, sizeof head, NULL, 0))
        return;
    input->announced = true;
    input->granted = limit;
}

void input_announce(struct input *input)
{
    if (input->closed || input->eof)
        stream_send_reset(input->stream.id, EPIPE);
    else
        send_credit(input);
}

/* The owner may free the input in this call. */
static void end(struct input *input, int error)
{
    bool tell = input->announced && !input->eof && error == EPIPE;
    input->closed = true;
    close_target(input);
    ring_release(&input->ring);
    if (tell)
        stream_send_reset(input->stream.id, EPIPE);
    if (input->over)
        input->over(input->context, error);
}

/* Writes one run of bytes. Returns how many were taken; -1: no more for now; -2: nobody reads. */
static ssize_t put(struct input *input, const struct iovec *parts, int count)
{
    ssize_t written;
    do
        written = writev(input->fd, parts, count);
    while (written < 0 && errno == EINTR);
    if (written >= 0)
        return written;
    return errno == EAGAIN ? -1 : -2;
}

/* Writes what is held, as far as it is taken now. The input may be gone after it. */
static void push(struct input *input)
{
    struct iovec parts[2];
    while (input->fd >= 0 && ring_held(&input->ring)) {
        int count = ring_parts(&input->ring, input->ring.begin, HYPER_WINDOW, parts);
        ssize_t written = put(input, parts, count);
        if (written == -2) {
            end(input, EPIPE);
            return;
        }
        if (written < 0)
            break;
        ring_drop(&input->ring, input->ring.begin + (uint64_t)written);
    }
    if (input->eof && !ring_held(&input->ring) && !input->closed)
        end(input, 0);
    else if (!input->eof && input->announced &&
             input->ring.begin + HYPER_WINDOW - input->granted >= HYPER_WINDOW / 4)
        send_credit(input);
}

static void on_event(void *context, uint32_t events)
{
    struct input *input = context;
    if (events & (EPOLLERR | EPOLLHUP))
        end(input, EPIPE);
    else
        push(input);
    link_flush();
}

int input_open(struct input *input, int fd)
{
    input->fd = fd;
    int error = fcntl(fd, F_SETFL, O_NONBLOCK) ? -errno
                                               : loop_add(fd, EPOLLOUT | EPOLLET, on_event, input);
    if (error)
        close_target(input);
    return error;
}

/* What the daemon says */

/* Gives bytes to the descriptor without a detour through the ring. Returns how many it took. */
static size_t put_directly(struct input *input, const uint8_t *bytes, size_t length)
{
    if (input->fd < 0 || ring_held(&input->ring))
        return 0;
    struct iovec part = {(void *)(uintptr_t)bytes, length};
    ssize_t written = put(input, &part, 1);
    if (written <= 0)
        return 0; /* an error comes again as an event, or with the next write */
    input->ring.begin = input->ring.end += (uint64_t)written;
    return (size_t)written;
}

int input_data(struct input *input, uint64_t offset, const uint8_t *bytes, size_t length)
{
    if (input->closed)
        return 0; /* on its way when the stream ended */
    if (offset != input->ring.end || input->eof || offset + length > input->granted)
        return -EPROTO;
    size_t written = put_directly(input, bytes, length);
    if (written < length && !ring_append(&input->ring, bytes + written, length - written))
        return -ENOMEM;
    push(input);
    return 0;
}

int input_eof(struct input *input, uint64_t offset)
{
    if (input->closed)
        return 0;
    if (offset != input->ring.end || input->eof)
        return -EPROTO;
    input->eof = true;
    send_credit(input);
    push(input);
    return 0;
}

void input_reset(struct input *input, int error)
{
    if (!input->closed)
        end(input, error);
}

void input_disconnected(struct input *input)
{
    input->announced = false;
    if (!input->stream.of_link)
        return;
    stream_forget(&input->stream);
    if (!input->closed)
        end(input, ENOTCONN);
}
