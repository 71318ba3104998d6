/* Connections: two sockets, a buffer each way, half-closes passed on. */
#include "ports.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

struct connection;

struct side {
    struct watched watched;
    struct connection *connection;
    int fd;
    int ended;      /* its end of input was seen */
    int passed;     /* and told to the other side */
    uint32_t asked; /* epoll events that are watched for; 0: not watched, for a hang-up is always told */
    size_t start, size;
    char buffer[BUFFER]; /* what came from it and has not gone to the other side */
};

struct connection {
    struct side client, server;
    int connecting, dead;
    struct connection *next_dead;
};

static struct connection *dead;
static int open_connections, paused;

static struct side *other(struct side *side)
{
    struct connection *connection = side->connection;
    return side == &connection->client ? &connection->server : &connection->client;
}

static void end(struct connection *connection)
{
    if (connection->dead)
        return;
    connection->dead = 1;
    connection->next_dead = dead;
    dead = connection;
}

static void ask_for(struct side *side)
{
    struct connection *connection = side->connection;
    uint32_t wanted = 0;
    if (!side->ended && side->size < BUFFER && !connection->connecting)
        wanted |= EPOLLIN;
    if (other(side)->size || (connection->connecting && side == &connection->server))
        wanted |= EPOLLOUT;
    if (wanted == side->asked)
        return;
    int operation = !wanted ? EPOLL_CTL_DEL : side->asked ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    watch(side->fd, wanted, &side->watched, operation);
    side->asked = wanted;
}

/* Takes what *side* has to say. Returns 0 if the connection is broken. */
static int take(struct side *side)
{
    if (side->ended || side->size == BUFFER)
        return 1;
    if (side->start) {
        memmove(side->buffer, side->buffer + side->start, side->size);
        side->start = 0;
    }
    ssize_t got = read(side->fd, side->buffer + side->size, BUFFER - side->size);
    if (got > 0)
        side->size += (size_t)got;
    else if (got == 0)
        side->ended = 1;
    else
        return errno == EAGAIN || errno == EINTR;
    return 1;
}

/* Gives what came from *side* to the other one. */
static int give(struct side *side)
{
    struct side *to = other(side);
    if (side->size) {
        ssize_t put = write(to->fd, side->buffer + side->start, side->size);
        if (put < 0)
            return errno == EAGAIN || errno == EINTR;
        side->start += (size_t)put;
        side->size -= (size_t)put;
        if (!side->size)
            side->start = 0;
    }
    if (side->ended && !side->size && !side->passed) {
        side->passed = 1;
        shutdown(to->fd, SHUT_WR);
    }
    return 1;
}

static int connected(struct connection *connection)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(connection->server.fd, SOL_SOCKET, SO_ERROR, &error, &size) || error)
        return 0;
    connection->connecting = 0;
    return 1;
}

static void side_ready(struct watched *watched, uint32_t events)
{
    struct side *side = (struct side *)watched, *peer = other(side);
    struct connection *connection = side->connection;
    if (connection->dead)
        return;
    int alive = 1;
    if (connection->connecting) {
        alive = connected(connection);
    } else {
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            alive = take(side) && give(side);
        if (alive && (events & EPOLLOUT))
            alive = give(peer);
        if (events & EPOLLERR)
            alive = 0;
    }
    if (!alive || (side->passed && peer->passed)) {
        end(connection);
        return;
    }
    ask_for(side);
    ask_for(peer);
}

/* Leaves the buffer alone: memory that no byte has come to is not touched. */
static void set_up(struct connection *connection, struct side *side, int fd)
{
    int on = 1;
    side->watched.ready = side_ready;
    side->connection = connection;
    side->fd = fd;
    side->ended = side->passed = 0;
    side->asked = 0;
    side->start = side->size = 0;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static int begin(struct listener *listener, int client)
{
    int server = socket(listener->target.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server < 0)
        return 0;
    struct connection *connection = malloc(sizeof *connection);
    if (!connection) {
        close(server);
        return 0;
    }
    connection->connecting = 1;
    connection->dead = 0;
    set_up(connection, &connection->client, client);
    set_up(connection, &connection->server, server);
    if (connect(server, (struct sockaddr *)&listener->target, listener->target_size) &&
        errno != EINPROGRESS) {
        close(server);
        free(connection);
        return 0;
    }
    open_connections++;
    ask_for(&connection->server);
    return 1;
}

void tcp_accept(struct watched *self, uint32_t events)
{
    struct listener *listener = (struct listener *)self;
    (void)events;
    if (open_connections >= MAX_CONNECTIONS) {
        paused = 1;
        watch(listener->fd, 0, self, EPOLL_CTL_MOD);
        return;
    }
    int client = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client >= 0 && !begin(listener, client))
        close(client);
}

void tcp_collect(struct listener *listeners, size_t count)
{
    while (dead) {
        struct connection *connection = dead;
        dead = connection->next_dead;
        close(connection->client.fd);
        close(connection->server.fd);
        free(connection);
        open_connections--;
    }
    if (paused && open_connections < MAX_CONNECTIONS) {
        paused = 0;
        for (size_t i = 0; i < count; i++)
            if (!listeners[i].datagrams)
                watch(listeners[i].fd, EPOLLIN, &listeners[i].watched, EPOLL_CTL_MOD);
    }
}
