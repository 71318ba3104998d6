/* DNS for containers at 127.0.0.11 (messages.py: Dns): the agent carries queries to the daemon, which
 * knows names and networks, and answers back. */
#ifndef HYPER_DNS_H
#define HYPER_DNS_H

#include "fail.h"

struct dns;

/* In the agent, before a container is started that wants DNS: the port at which its sockets are to
 * listen. Not 53 where the kernel can redirect it, so that a name server of the container's own may
 * take that port. */
unsigned short dns_port(void);
/* In the container's network namespace: a datagram socket and a listening one. 0 or -1. */
int dns_sockets(unsigned short port, int sockets[2], struct failure *failure);
/* In the agent: serves the sockets, which are its own from now on. NULL: no memory. */
struct dns *dns_serve(const char *container, int udp, int tcp);
void dns_end(struct dns *dns);

#endif
