/* Datagrams: a flow per client, with a socket of its own towards the container, so that answers
 * find their way back. The table is small and searched from end to end. */
#include "ports.h"

#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

struct flow {
    struct watched watched;
    struct listener *listener; /* NULL: free */
    int fd;
    time_t used;
    socklen_t client_size;
    struct sockaddr_storage client;
};

static struct flow flows[MAX_FLOWS];
static int flow_count;
static char datagram[65536];

static time_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

static void forget(struct flow *flow)
{
    close(flow->fd);
    flow->listener = NULL;
    flow_count--;
}

static void flow_ready(struct watched *self, uint32_t events)
{
    struct flow *flow = (struct flow *)self;
    (void)events;
    if (!flow->listener)
        return;
    ssize_t size = recvfrom(flow->fd, datagram, sizeof datagram, 0, NULL, NULL);
    if (size < 0)
        return; /* nobody listens in the container (yet) */
    flow->used = now();
    sendto(flow->listener->fd, datagram, (size_t)size, 0, (struct sockaddr *)&flow->client,
           flow->client_size);
}

static struct flow *find(struct listener *listener, struct sockaddr_storage *client, socklen_t size)
{
    struct flow *spare = NULL, *oldest = flows;
    for (struct flow *flow = flows; flow < flows + MAX_FLOWS; flow++) {
        if (!flow->listener)
            spare = flow;
        else if (flow->listener == listener && flow->client_size == size &&
                 !memcmp(&flow->client, client, size))
            return flow;
        else if (flow->used < oldest->used)
            oldest = flow;
    }
    if (!spare) {
        forget(oldest);
        spare = oldest;
    }
    int fd = socket(listener->target.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    if (connect(fd, (struct sockaddr *)&listener->target, listener->target_size)) {
        close(fd);
        return NULL;
    }
    *spare = (struct flow){
        .watched = {flow_ready}, .listener = listener, .fd = fd, .client_size = size};
    memcpy(&spare->client, client, size);
    watch(fd, EPOLLIN, &spare->watched, EPOLL_CTL_ADD);
    flow_count++;
    return spare;
}

void udp_receive(struct watched *self, uint32_t events)
{
    struct listener *listener = (struct listener *)self;
    struct sockaddr_storage client = {0};
    socklen_t size = sizeof client;
    (void)events;
    ssize_t got =
        recvfrom(listener->fd, datagram, sizeof datagram, 0, (struct sockaddr *)&client, &size);
    if (got < 0)
        return;
    struct flow *flow = find(listener, &client, size);
    if (!flow)
        return;
    flow->used = now();
    sendto(flow->fd, datagram, (size_t)got, 0, NULL, 0);
}

void udp_sweep(void)
{
    static time_t swept;
    time_t time = now();
    if (!flow_count || time - swept < SWEEP_MS / 1000)
        return;
    swept = time;
    for (struct flow *flow = flows; flow < flows + MAX_FLOWS; flow++)
        if (flow->listener && time - flow->used > FLOW_SECONDS)
            forget(flow);
}

int udp_has_flows(void)
{
    return flow_count > 0;
}
