/* Network interfaces of containers: found by MAC, moved, named, given addresses and routes. All runs
 * in children of the agent and may wait for an interface that is still being plugged in. */
#ifndef HYPER_NET_H
#define HYPER_NET_H

#include <stdbool.h>

#include "fail.h"
#include "spec.h"

/* A socket that goes on speaking to this network namespace: the one where interfaces arrive. */
int net_open(void);
/* In the container's network namespace: brings the loopback interface up if the namespace is new, and
 * fetches each interface through `guest` (of net_open), or configures it anew if it is already here.
 * 0 or -1. */
int net_setup(int guest, const struct nic_spec *nics, size_t count, bool loopback,
              struct failure *failure);
/* In the container's network namespace, in the guest's PID namespace: gives an interface back. */
int net_give_back(const struct nic_spec *nic, struct failure *failure);
/* In the agent, at boot: the loopback interface of the guest. 0 or -errno. */
int net_loopback_up(void);

#endif
