/* rtnetlink(7): requests put together into one packet and sent at once, since every system call of a
 * guest costs. */
#ifndef HYPER_NETLINK_H
#define HYPER_NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NETLINK_ROOM = 16 << 10, MAC_BYTES = 6 };

struct netlink_batch {
    union {
        uint8_t bytes[NETLINK_ROOM];
        uint32_t aligned;
    } data;
    size_t length;
    size_t message;  /* where the last one begins */
    unsigned count;
    bool overflow;
};

/* A socket of the caller's network namespace, or -1 with errno. */
int netlink_open(void);
/* Begins a request; `fixed` is its family header. */
void netlink_request(struct netlink_batch *batch, uint16_t type, uint16_t flags, const void *fixed,
                     size_t size);
void netlink_attribute(struct netlink_batch *batch, uint16_t type, const void *data, size_t size);
/* Sends all and waits. 0, or -errno of the first that failed, with its index in *failed. */
int netlink_commit(int fd, struct netlink_batch *batch, unsigned *failed);
/* The index of the interface with this MAC, 0 if there is none, -errno. */
int netlink_find(int fd, const uint8_t mac[MAC_BYTES]);

#endif
