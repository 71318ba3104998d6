/* The connection to the daemon. Frames that hold no stream data (and small ones that do) are copied
 * to a queue; large runs of stream data go from the stream's ring to the socket. See link.h. */
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop.h"
#include "messages.h"
#include "process.h"
#include "request.h"
#include "sockets.h"
#include "stream.h"
#include "wire.h"

enum {
    EVENTS = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
    RECEIVE = 64 << 10,
    ROUNDS = 16,            /* receives before others have their turn */
    SMALL = 4096,           /* stream data up to this size is copied, so that frames go together */
    STAGED = 32 << 10,      /* bytes of the queue up to which that is done */
    QUEUE_KEPT = 256 << 10, /* memory of an empty queue at most */
    QUEUE_SOFT = 1 << 20,   /* above it no requests are read */
    QUEUE_HARD = 16 << 20,  /* above it the connection ends: the daemon does not read */
};

struct queue {
    uint8_t *data;
    size_t begin, end, room;
};

/* A DATA frame on its way whose bytes lie in its stream's ring. */
struct frame {
    struct output *output; /* NULL: none */
    uint8_t head[OUTPUT_HEAD];
    size_t head_sent, left;
};

static struct {
    int fd;
    uint32_t number, last_number;
    struct wire wire;
    struct queue queue;
    struct frame frame;
    struct output *first, *last; /* who has something to send */
    bool writable, hung_up, receiving, paused, broken;
} conn = {.fd = -1};

uint32_t link_current(void)
{
    return conn.number;
}

/* The queue */

static size_t queued(void)
{
    return conn.queue.end - conn.queue.begin;
}

bool link_busy(void)
{
    return queued() >= QUEUE_SOFT;
}

/* Makes room for `length` bytes behind what is queued. */
static bool queue_room(size_t length)
{
    struct queue *queue = &conn.queue;
    size_t held = queued();
    if (queue->room - queue->end >= length)
        return true;
    if (held)
        memmove(queue->data, queue->data + queue->begin, held);
    queue->begin = 0;
    queue->end = held;
    size_t room = queue->room ? queue->room : 4096;
    while (room < held + length)
        room *= 2;
    if (room == queue->room)
        return true;
    uint8_t *grown = realloc(queue->data, room);
    if (!grown)
        return false;
    queue->data = grown;
    queue->room = room;
    return true;
}

static void queue_put(const void *bytes, size_t length)
{
    if (length)
        memcpy(conn.queue.data + conn.queue.end, bytes, length);
    conn.queue.end += length;
}

void link_break(void)
{
    if (conn.fd >= 0 && !conn.broken) {
        conn.broken = true;
        shutdown(conn.fd, SHUT_RDWR);
    }
}

bool link_send(const void *head, size_t head_length, const void *payload, size_t length)
{
    if (conn.fd < 0 || conn.broken)
        return false;
    if (queued() + head_length + length > QUEUE_HARD || !queue_room(head_length + length)) {
        link_break();
        return false;
    }
    queue_put(head, head_length);
    queue_put(payload, length);
    return true;
}

/* Streams with something to send */

static void enlist(struct output *output)
{
    output->queued = true;
    output->earlier = conn.last;
    output->later = NULL;
    *(conn.last ? &conn.last->later : &conn.first) = output;
    conn.last = output;
}

static void delist(struct output *output)
{
    if (!output->queued)
        return;
    *(output->earlier ? &output->earlier->later : &conn.first) = output->later;
    *(output->later ? &output->later->earlier : &conn.last) = output->earlier;
    output->earlier = output->later = NULL;
    output->queued = false;
}

void link_offer(struct output *output)
{
    if (conn.fd >= 0 && !output->queued && output_sendable(output))
        enlist(output);
}

/* Puts what is left of the frame in front of the queue, so that its stream may go. */
static void detach_frame(void)
{
    struct frame *frame = &conn.frame;
    struct iovec parts[2];
    if (!frame->head_sent) {
        frame->output = NULL; /* not begun, so it need not be ended */
        return;
    }
    size_t head_left = OUTPUT_HEAD - frame->head_sent, left = head_left + frame->left;
    int count = ring_parts(&frame->output->ring, frame->output->next, frame->left, parts);
    if (!queue_room(left)) {
        link_break();
        frame->output = NULL;
        return;
    }
    uint8_t *at = conn.queue.data + conn.queue.begin;
    memmove(at + left, at, queued());
    conn.queue.end += left;
    memcpy(at, frame->head + frame->head_sent, head_left);
    at += head_left;
    for (int i = 0; i < count; i++) {
        memcpy(at, parts[i].iov_base, parts[i].iov_len);
        at += parts[i].iov_len;
    }
    frame->output = NULL;
}

void link_forget(struct output *output)
{
    delist(output);
    if (conn.frame.output == output)
        detach_frame();
}

/* Takes the next stream's frame: a small one is copied to the queue, a large one becomes the frame
 * under way. False: nobody has anything. */
static bool next_frame(void)
{
    struct output *output = conn.first;
    if (!output)
        return false;
    struct frame *frame = &conn.frame;
    struct iovec parts[2];
    delist(output);
    int64_t length = output_frame(output, frame->head, parts);
    if (length < 0)
        return true;
    if (length <= SMALL && queue_room(OUTPUT_HEAD + (size_t)length)) {
        queue_put(frame->head, OUTPUT_HEAD);
        for (size_t i = 0, left = (size_t)length; left; left -= parts[i++].iov_len)
            queue_put(parts[i].iov_base, parts[i].iov_len);
        output->next += (uint64_t)length;
        link_offer(output);
    } else {
        frame->output = output;
        frame->head_sent = 0;
        frame->left = (size_t)length;
    }
    return true;
}

/* Sending */

static int gather_frame(struct iovec parts[3])
{
    struct frame *frame = &conn.frame;
    parts[0] = (struct iovec){frame->head + frame->head_sent, OUTPUT_HEAD - frame->head_sent};
    return 1 + ring_parts(&frame->output->ring, frame->output->next, frame->left, parts + 1);
}

static void sent_of_frame(size_t sent)
{
    struct frame *frame = &conn.frame;
    size_t of_head = OUTPUT_HEAD - frame->head_sent;
    if (of_head > sent)
        of_head = sent;
    frame->head_sent += of_head;
    sent -= of_head;
    frame->left -= sent;
    frame->output->next += sent;
    if (frame->left)
        return;
    struct output *output = frame->output;
    frame->output = NULL;
    link_offer(output); /* behind the others */
}

static void sent_of_queue(size_t sent)
{
    conn.queue.begin += sent;
    if (!queued())
        conn.queue.begin = conn.queue.end = 0;
    if (!queued() && conn.queue.room > QUEUE_KEPT) {
        free(conn.queue.data);
        conn.queue = (struct queue){0};
    }
    if (conn.paused && queued() < QUEUE_SOFT) {
        conn.paused = false;
        loop_change(conn.fd, EVENTS); /* read on */
    }
}

/* Sends once. False: nothing to send, or the socket takes no more for now. */
static bool send_some(void)
{
    while (!conn.frame.output && queued() < STAGED && next_frame())
        continue;
    struct iovec parts[3] = {{conn.queue.data + conn.queue.begin, queued()}};
    bool frame = conn.frame.output && (conn.frame.head_sent || !queued());
    int count = frame ? gather_frame(parts) : 1;
    if (!frame && !queued())
        return false;
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    ssize_t sent = sendmsg(conn.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
        if (errno == EAGAIN)
            conn.writable = false;
        else if (errno != EINTR)
            link_break();
        return errno == EINTR;
    }
    frame ? sent_of_frame((size_t)sent) : sent_of_queue((size_t)sent);
    return true;
}

void link_flush(void)
{
    if (conn.receiving)
        return; /* once at the end is enough */
    while (conn.fd >= 0 && !conn.broken && conn.writable && send_some())
        continue;
}

void link_finish(unsigned milliseconds)
{
    bool ended = false;
    conn.receiving = false;
    for (unsigned waited = 0; waited < milliseconds && conn.fd >= 0 && !conn.broken; waited++) {
        int unacknowledged = 0;
        conn.writable = true;
        link_flush();
        /* The end of the connection is acknowledged at once, the last bytes alone are not. */
        if (!queued() && !ended)
            ended = !shutdown(conn.fd, SHUT_WR);
        if (!queued() && (ioctl(conn.fd, SIOCOUTQ, &unacknowledged) || !unacknowledged))
            return;
        poll(NULL, 0, 1);
    }
}

/* Frames of the daemon */

static int on_request(void *context, uint16_t op, uint64_t id, const uint8_t *payload,
                      size_t length)
{
    (void)context;
    struct request request = {.id = id, .link = conn.number, .op = op};
    return dispatch_request(request, payload, length) ? 0 : -EPROTO;
}

static int on_data(void *context, uint32_t stream, uint64_t offset, const uint8_t *bytes,
                   size_t length)
{
    (void)context;
    return streams_data(stream, offset, bytes, length);
}

static int on_credit(void *context, uint32_t stream, uint64_t taken, uint64_t limit)
{
    (void)context;
    return streams_credit(stream, taken, limit);
}

static int on_eof(void *context, uint32_t stream, uint64_t offset)
{
    (void)context;
    return streams_eof(stream, offset);
}

static int on_reset(void *context, uint32_t stream, uint16_t code)
{
    (void)context;
    return streams_reset(stream, code);
}

static const struct wire_calls calls = {on_request, on_data, on_credit, on_eof, on_reset};

/* Life of the connection */

static void end_connection(void)
{
    if (conn.fd < 0)
        return;
    loop_remove(conn.fd);
    close(conn.fd);
    conn.fd = -1;
    conn.number = 0;
    wire_free(&conn.wire);
    free(conn.queue.data);
    conn.queue = (struct queue){0};
    conn.frame.output = NULL;
    conn.first = conn.last = NULL;
    streams_disconnected();
    sockets_disconnected();
}

/* Receives once. 1: there may be more, 0: not for now, -1: the connection is over. */
static int receive(void)
{
    static uint8_t buffer[RECEIVE];
    ssize_t got = recv(conn.fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0)
        return errno == EINTR ? 1 : errno == EAGAIN ? 0 : -1;
    if (!got || wire_feed(&conn.wire, buffer, (size_t)got))
        return -1;
    /* Less than asked for is all there is, unless the daemon has hung up, which is said once. */
    return (size_t)got == sizeof buffer || conn.hung_up;
}

static void on_socket(void *context, uint32_t events)
{
    (void)context;
    int more = 1;
    conn.writable |= (events & EPOLLOUT) != 0;
    conn.hung_up |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    conn.receiving = true;
    for (size_t i = 0; i < ROUNDS && more > 0 && !conn.broken; i++) {
        conn.paused = queued() >= QUEUE_SOFT;
        if (conn.paused)
            break;
        more = receive();
    }
    conn.receiving = false;
    link_flush();
    if (more < 0 || conn.broken)
        end_connection();
    else if (more && !conn.paused)
        loop_change(conn.fd, EVENTS); /* the rest after the others */
}

static void greet(void)
{
    static uint64_t nonce; /* random per boot */
    uint8_t head[HYPER_HEADER];
    if (!nonce && getrandom(&nonce, sizeof nonce, GRND_INSECURE) < 0)
        nonce = 1;
    wire_header(head, FRAME_HELLO, HYPER_VERSION, nonce, 0);
    link_send(head, sizeof head, NULL, 0);
    processes_connected();
    sockets_connected();
    link_flush();
}

static void begin_connection(int fd)
{
    int on = 1;
    end_connection();
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    conn.fd = fd;
    conn.number = ++conn.last_number ? conn.last_number : ++conn.last_number;
    conn.writable = true;
    conn.hung_up = conn.paused = conn.broken = false;
    wire_init(&conn.wire, &calls, NULL);
    if (loop_add(fd, EVENTS, on_socket, NULL)) {
        end_connection();
        return;
    }
    greet();
}

static void on_listener(void *context, uint32_t events)
{
    (void)events;
    const int *listener = context;
    int fd = accept4(*listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        begin_connection(fd);
}

int link_listen(int fd)
{
    static int listener;
    listener = fd;
    return loop_add(fd, EPOLLIN, on_listener, &listener);
}
