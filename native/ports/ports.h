/* The port helper: holds the sockets of a container's published ports and carries what no packet
 * filter rule can, from IPv6 to IPv4 and from IPv6's loopback. One small process per container.
 *
 * It never looks at what it carries. Everything is bounded: connections, flows, buffers. */
#ifndef HYPER_PORTS_H
#define HYPER_PORTS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

enum {
    MAX_LISTENERS = 8192,
    MAX_CONNECTIONS = 512,
    MAX_FLOWS = 512,
    BUFFER = 32 << 10,
    FLOW_SECONDS = 90,
    SWEEP_MS = 10000,
};

/* What an epoll event is about: the first member of everything that is watched. */
struct watched {
    void (*ready)(struct watched *self, uint32_t events);
};

struct listener {
    struct watched watched;
    int fd, datagrams;
    struct sockaddr_storage target;
    socklen_t target_size;
};

/* Ends the process with a sentence on stderr. */
_Noreturn void die(const char *what);

/* confine.c: the pid file, the cgroups, the uid, the system calls. Each ends the process if it fails. */
void write_pidfile(const char *path);
void join_cgroups(char **files, size_t count);
void drop_privileges(uid_t uid, size_t descriptors);
void forbid_system_calls(void);

/* main.c */
void watch(int fd, uint32_t events, struct watched *watched, int operation);

/* tcp.c: takes connections; resumes the listeners when there is room again. */
void tcp_accept(struct watched *self, uint32_t events);
void tcp_collect(struct listener *listeners, size_t count);

/* udp.c: carries datagrams; forgets flows that have been silent for long. */
void udp_receive(struct watched *self, uint32_t events);
void udp_sweep(void);
int udp_has_flows(void);

#endif
