/* The way of connections from a container to a unix socket of the host. See sockets.h.
 *
 * A connection is accepted, told to the daemon and waits. The daemon answers with the ids of two
 * streams, which end with the daemon's connection as this one does, or with an errno. While no daemon
 * is there, or as many connections are open as may be, clients wait in the kernel's queue. */
#include "sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "link.h"
#include "loop.h"
#include "request.h"
#include "stream.h"

enum {
    CONNECTIONS_MOST = 128, /* of the guest */
    BACKLOG = 128,
    ANSWER_MS = 60000, /* within which the daemon says what becomes of a connection */
    CONTAINER_MOST = 64,
    SOURCE_MOST = 63,
};

struct listener {
    struct listener *next;
    const struct sockets *home;
    int fd;
    char path[SOCKET_PATH], source[SOURCE_MOST + 1];
};

struct sockets {
    struct sockets *next;
    char container[CONTAINER_MOST + 1];
    struct listener *listeners;
};

/* Outlives its container: what a client said before it ended is still carried. */
struct connection {
    struct connection *next;
    uint32_t number; /* never used again */
    uint32_t timer;
    int fd; /* until the daemon has answered; then the streams have it */
    struct output *output; /* NULL: that direction is over */
    struct input *input;
};

static struct sockets *all;
static struct connection *connections;
static unsigned connection_count;
static uint32_t last_number;
static bool resting; /* some listener does not accept for now */

void socket_path(char path[SOCKET_PATH], const char *container, size_t number)
{
    snprintf(path, SOCKET_PATH, SOCKETS "/%.64s.%zu", container, number);
}

static void listen_again(void)
{
    if (!resting || !link_current() || connection_count >= CONNECTIONS_MOST)
        return;
    resting = false;
    for (const struct sockets *sockets = all; sockets; sockets = sockets->next)
        for (const struct listener *at = sockets->listeners; at; at = at->next)
            loop_change(at->fd, EPOLLIN);
}

/* Connections */

static void forget(struct connection *connection)
{
    for (struct connection **at = &connections; *at; at = &(*at)->next)
        if (*at == connection) {
            *at = connection->next;
            break;
        }
    loop_cancel(connection->timer);
    if (connection->fd >= 0)
        close(connection->fd);
    if (connection->output)
        output_free(connection->output);
    if (connection->input)
        input_free(connection->input);
    free(connection);
    connection_count--;
    listen_again();
}

static void on_late(void *context)
{
    struct connection *connection = context;
    connection->timer = 0;
    forget(connection);
}

/* All that the container had to say was taken, or the host reads no more. */
static void on_output_over(void *context, int error)
{
    struct connection *connection = context;
    output_free(connection->output);
    connection->output = NULL;
    if (!connection->input)
        forget(connection);
    else if (error)
        shutdown(connection->input->fd, SHUT_RD);
}

/* All that the host had to say was written, or the container reads no more. */
static void on_input_over(void *context, int error)
{
    (void)error;
    struct connection *connection = context;
    input_free(connection->input);
    connection->input = NULL;
    if (!connection->output)
        forget(connection);
    else if (connection->output->fd >= 0)
        shutdown(connection->output->fd, SHUT_WR);
}

static struct connection *accepted(int fd)
{
    struct connection *connection = calloc(1, sizeof *connection);
    uint32_t timer = connection ? loop_after(ANSWER_MS, on_late, connection) : 0;
    if (!timer) {
        free(connection);
        close(fd);
        return NULL;
    }
    last_number += last_number == UINT32_MAX ? 2 : 1;
    *connection = (struct connection){
        .next = connections, .number = last_number, .timer = timer, .fd = fd};
    connections = connection;
    connection_count++;
    return connection;
}

static void on_client(void *context, uint32_t events)
{
    (void)events;
    const struct listener *listener = context;
    if (!link_current() || connection_count >= CONNECTIONS_MOST) {
        resting = true;
        loop_change(listener->fd, 0);
        return;
    }
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    const struct connection *connection = fd < 0 ? NULL : accepted(fd);
    if (!connection)
        return;
    struct writer event = {0};
    write_text(&event, F_SOCKET_OPEN_CONTAINER, listener->home->container);
    write_text(&event, F_SOCKET_OPEN_SOURCE, listener->source);
    write_number(&event, F_SOCKET_OPEN_CONNECTION, connection->number);
    send_event(EVENT_KIND_SOCKET_OPEN, &event);
}

/* Answers */

struct answer {
    uint32_t connection, output, input;
    bool refused;
};

/* Makes the streams, each with a descriptor of its own for the one socket. 0 or -errno. */
static int open_streams(struct connection *connection, const struct answer *answer)
{
    int other = fcntl(connection->fd, F_DUPFD_CLOEXEC, 3);
    if (other < 0)
        return -errno;
    connection->output = output_new(answer->output, true);
    connection->input = connection->output ? input_new(answer->input, true) : NULL;
    if (!connection->input) {
        int error = -errno;
        close(other);
        return error;
    }
    connection->output->over = on_output_over;
    connection->input->over = on_input_over;
    connection->output->context = connection->input->context = connection;
    int fd = connection->fd;
    connection->fd = -1;
    int error = input_open(connection->input, other);
    if (error) {
        close(fd);
        return error;
    }
    error = output_open(connection->output, fd);
    if (!error)
        input_announce(connection->input);
    return error;
}

static struct connection *waiting(uint32_t number)
{
    for (struct connection *at = connections; at; at = at->next)
        if (at->number == number && at->fd >= 0)
            return at;
    return NULL;
}

static void take_answer(struct request request, const struct answer *answer)
{
    struct connection *connection = waiting(answer->connection);
    if (!connection) {
        reply_failure(request, ENOENT, STAGE_OTHER, "nobody waits for this answer");
        return;
    }
    loop_cancel(connection->timer);
    connection->timer = 0;
    int error = answer->refused ? 0 : open_streams(connection, answer);
    if (error)
        reply_failure(request, -error, STAGE_OTHER, "the streams can't be opened");
    else
        reply(request, NULL);
    if (error || answer->refused)
        forget(connection);
}

void handle_socket_answer(struct request request, struct reader *payload)
{
    struct answer answer = {0};
    struct field field;
    while (reader_next(payload, &field)) {
        int64_t number = field_number(payload, &field);
        if (number < 0 || number > UINT32_MAX)
            payload->bad = true;
        else if (field.tag == F_SOCKET_ANSWER_CONNECTION)
            answer.connection = (uint32_t)number;
        else if (field.tag == F_SOCKET_ANSWER_OUTPUT)
            answer.output = (uint32_t)number;
        else if (field.tag == F_SOCKET_ANSWER_INPUT)
            answer.input = (uint32_t)number;
        else if (field.tag == F_SOCKET_ANSWER_ERROR)
            answer.refused = number != 0;
        else
            payload->bad = true;
    }
    payload->bad |= !answer.refused && (!answer.output || !answer.input);
    if (!payload->bad)
        take_answer(request, &answer);
}

/* Listeners */

struct sockets *sockets_new(const char *container)
{
    struct sockets *sockets = calloc(1, sizeof *sockets);
    if (!sockets)
        return NULL;
    snprintf(sockets->container, sizeof sockets->container, "%s", container);
    sockets->next = all;
    all = sockets;
    return sockets;
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    unlink(path);
    if (!bind(fd, (struct sockaddr *)&address, sizeof address) && !listen(fd, BACKLOG))
        return fd;
    int error = -errno;
    close(fd);
    return error;
}

int sockets_listen(struct sockets *sockets, const char *path, const char *source)
{
    if (strlen(source) > SOURCE_MOST || strlen(path) >= SOCKET_PATH)
        return -ENAMETOOLONG;
    struct listener *listener = calloc(1, sizeof *listener);
    int fd = listener ? listen_at(path) : -ENOMEM;
    int error = fd < 0 ? fd : loop_add(fd, EPOLLIN, on_client, listener);
    if (error) {
        if (fd >= 0)
            close(fd);
        free(listener);
        return error;
    }
    *listener = (struct listener){.next = sockets->listeners, .home = sockets, .fd = fd};
    strcpy(listener->path, path);
    strcpy(listener->source, source);
    sockets->listeners = listener;
    return 0;
}

void sockets_end(struct sockets *sockets)
{
    if (!sockets)
        return;
    for (struct sockets **at = &all; *at; at = &(*at)->next)
        if (*at == sockets) {
            *at = sockets->next;
            break;
        }
    while (sockets->listeners) {
        struct listener *listener = sockets->listeners;
        sockets->listeners = listener->next;
        loop_remove(listener->fd);
        close(listener->fd);
        unlink(listener->path);
        free(listener);
    }
    free(sockets);
}

/* The daemon */

void sockets_connected(void)
{
    listen_again();
}

/* Those with streams have ended with them. */
void sockets_disconnected(void)
{
    for (struct connection *at = connections, *next; at; at = next) {
        next = at->next;
        if (at->fd >= 0)
            forget(at);
    }
}
