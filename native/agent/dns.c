/* The way of DNS messages between containers and the daemon. See dns.h, RFC 1035 4.2. */
#include "dns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bpf.h"
#include "link.h"
#include "loop.h"
#include "request.h"
#include "state.h"

#define ADDRESS 0x7f00000bu /* 127.0.0.11 */

enum {
    PORT = 53,
    HIDDEN_PORT = 31053,
    QUERIES_MOST = 256, /* that wait for an answer, per container; the oldest gives way */
    CONNECTIONS_MOST = 16,
    DATAGRAM_MOST = 4096, /* of a query; RFC 6891 advises 4096 */
    MESSAGE_MOST = 65535,
    BATCH = 32,
    IDLE_MS = 10000,
    HEADER = 12, /* of the shortest message */
};

struct connection {
    struct connection *next;
    struct dns *dns;
    int fd;
    uint32_t number; /* never used again, 0 is none */
    uint32_t timer;
    size_t length; /* bytes that have come, the two of the length included */
    uint8_t data[2 + MESSAGE_MOST];
};

struct query {
    uint32_t number; /* 0: free */
    uint32_t connection;
    struct sockaddr_in from;
};

struct dns {
    struct dns *next;
    char container[ID_MOST + 1];
    int udp, tcp;
    struct connection *connections;
    size_t connection_count;
    struct query queries[QUERIES_MOST];
    size_t next_query;
};

static struct dns *servers;
static uint32_t last_number;

unsigned short dns_port(void)
{
    static unsigned short port;
    if (port)
        return port;
    int cgroup = open("/sys/fs/cgroup/c", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    port = cgroup >= 0 && !bpf_redirect_dns(cgroup, htonl(ADDRESS), HIDDEN_PORT) ? HIDDEN_PORT
                                                                                  : PORT;
    if (cgroup >= 0)
        close(cgroup);
    return port;
}

int dns_sockets(unsigned short port, int sockets[2], struct failure *failure)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(ADDRESS)};
    int yes = 1;
    sockets[0] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockets[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    for (int i = 0; i < 2; i++)
        if (sockets[i] < 0 || setsockopt(sockets[i], SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) ||
            bind(sockets[i], (struct sockaddr *)&at, sizeof at))
            return fail_errno(failure, STAGE_NETWORK, errno, "binding the DNS server");
    if (listen(sockets[1], CONNECTIONS_MOST))
        return fail_errno(failure, STAGE_NETWORK, errno, "listening for DNS");
    return 0;
}

/* Queries */

static uint32_t new_number(void)
{
    last_number += last_number == UINT32_MAX ? 2 : 1;
    return last_number;
}

static void ask(struct dns *dns, const struct query *from, const uint8_t *data, size_t length)
{
    struct query *query = &dns->queries[dns->next_query++ % QUERIES_MOST];
    *query = *from;
    query->number = new_number();
    struct writer event = {0};
    write_text(&event, F_DNS_CONTAINER, dns->container);
    write_number(&event, F_DNS_QUERY, query->number);
    write_bytes(&event, F_DNS_MESSAGE, data, length);
    write_number(&event, F_DNS_TCP, query->connection != 0);
    send_event(EVENT_KIND_DNS_QUERY, &event);
}

static void on_datagram(void *context, uint32_t events)
{
    (void)events;
    struct dns *dns = context;
    uint8_t data[DATAGRAM_MOST];
    for (int i = 0; i < BATCH; i++) {
        struct query query = {0};
        socklen_t size = sizeof query.from;
        ssize_t length =
            recvfrom(dns->udp, data, sizeof data, MSG_DONTWAIT, (struct sockaddr *)&query.from,
                     &size);
        if (length < 0)
            return;
        /* A flood is dropped rather than let it cost the connection. */
        if (length >= HEADER && !link_busy())
            ask(dns, &query, data, (size_t)length);
    }
}

/* Connections */

static void hang_up(struct connection *connection)
{
    struct dns *dns = connection->dns;
    for (struct connection **at = &dns->connections; *at; at = &(*at)->next)
        if (*at == connection) {
            *at = connection->next;
            break;
        }
    dns->connection_count--;
    loop_remove(connection->fd);
    loop_cancel(connection->timer);
    close(connection->fd);
    free(connection);
}

static void on_idle(void *context)
{
    struct connection *connection = context;
    connection->timer = 0;
    hang_up(connection);
}

/* Asks for each whole message and keeps the beginning of the next. */
static bool take_messages(struct connection *connection)
{
    size_t done = 0;
    while (connection->length - done >= 2) {
        const uint8_t *at = connection->data + done;
        size_t length = (size_t)(at[0] << 8 | at[1]);
        if (length < HEADER)
            return false;
        if (connection->length - done < 2 + length)
            break;
        ask(connection->dns, &(struct query){.connection = connection->number}, at + 2, length);
        done += 2 + length;
    }
    connection->length -= done;
    memmove(connection->data, connection->data + done, connection->length);
    return true;
}

static void on_stream(void *context, uint32_t events)
{
    (void)events;
    struct connection *connection = context;
    ssize_t got = read(connection->fd, connection->data + connection->length,
                       sizeof connection->data - connection->length);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0)
        connection->length += (size_t)got;
    if (got <= 0 || link_busy() || !take_messages(connection))
        hang_up(connection);
}

static void on_connection(void *context, uint32_t events)
{
    (void)events;
    struct dns *dns = context;
    int fd = accept4(dns->tcp, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct connection *connection =
        dns->connection_count < CONNECTIONS_MOST ? calloc(1, sizeof *connection) : NULL;
    if (!connection || loop_add(fd, EPOLLIN, on_stream, connection)) {
        free(connection);
        close(fd);
        return;
    }
    connection->dns = dns;
    connection->fd = fd;
    connection->number = new_number();
    connection->next = dns->connections;
    dns->connections = connection;
    dns->connection_count++;
    connection->timer = loop_after(IDLE_MS, on_idle, connection);
    if (!connection->timer)
        hang_up(connection);
}

/* Answers */

static void answer_stream(struct dns *dns, uint32_t number, const uint8_t *data, size_t length)
{
    uint8_t head[2] = {(uint8_t)(length >> 8), (uint8_t)length};
    for (struct connection *at = dns->connections; at; at = at->next) {
        if (at->number != number)
            continue;
        struct iovec parts[] = {{head, 2}, {(void *)(uintptr_t)data, length}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        /* Who does not read its answers loses the connection rather than the agent's memory. */
        if (sendmsg(at->fd, &message, MSG_NOSIGNAL) != (ssize_t)(2 + length))
            hang_up(at);
        return;
    }
}

static int answer(const char *container, uint32_t number, const uint8_t *data, size_t length)
{
    struct dns *dns = servers;
    while (dns && strcmp(dns->container, container))
        dns = dns->next;
    for (size_t i = 0; dns && number && i < QUERIES_MOST; i++) {
        struct query *query = &dns->queries[i];
        if (query->number != number)
            continue;
        query->number = 0;
        if (query->connection)
            answer_stream(dns, query->connection, data, length);
        else
            sendto(dns->udp, data, length, MSG_NOSIGNAL | MSG_DONTWAIT,
                   (struct sockaddr *)&query->from, sizeof query->from);
        return 0;
    }
    return ENOENT;
}

void handle_dns_answer(struct request request, struct reader *payload)
{
    char container[ID_MOST + 1] = "";
    struct field field, message = {0};
    uint32_t number = 0;
    while (reader_next(payload, &field)) {
        if (field.tag == F_DNS_CONTAINER && field.length <= ID_MOST) {
            memcpy(container, field.data, field.length);
            container[field.length] = 0;
        } else if (field.tag == F_DNS_QUERY) {
            number = (uint32_t)field_number(payload, &field);
        } else if (field.tag == F_DNS_MESSAGE && field.length <= MESSAGE_MOST) {
            message = field;
        } else if (field.tag != F_DNS_TCP) {
            payload->bad = true;
        }
    }
    if (payload->bad)
        return;
    int error = answer(container, number, message.data, message.length);
    if (error)
        reply_failure(request, error, STAGE_OTHER, "nobody waits for this answer");
    else
        reply(request, NULL);
}

/* Servers */

struct dns *dns_serve(const char *container, int udp, int tcp)
{
    struct dns *dns = calloc(1, sizeof *dns);
    if (!dns) {
        close(udp);
        close(tcp);
        return NULL;
    }
    *dns = (struct dns){.next = servers, .udp = udp, .tcp = tcp};
    strncpy(dns->container, container, ID_MOST);
    servers = dns;
    if (!loop_add(udp, EPOLLIN, on_datagram, dns) && !loop_add(tcp, EPOLLIN, on_connection, dns))
        return dns;
    dns_end(dns);
    return NULL;
}

void dns_end(struct dns *dns)
{
    if (!dns)
        return;
    for (struct dns **at = &servers; *at; at = &(*at)->next)
        if (*at == dns) {
            *at = dns->next;
            break;
        }
    while (dns->connections)
        hang_up(dns->connections);
    loop_remove(dns->udp);
    loop_remove(dns->tcp);
    close(dns->udp);
    close(dns->tcp);
    free(dns);
}
