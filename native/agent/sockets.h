/* Unix sockets of the host in containers (docs/agent-protocol.md, "Sockets"): the agent listens in
 * the guest, and asks the daemon for two streams for each connection. */
#ifndef HYPER_SOCKETS_H
#define HYPER_SOCKETS_H

#include <stddef.h>

#define SOCKETS "/run/s" /* folder of the listening sockets, root's alone */
enum { SOCKET_PATH = 100 };

struct sockets;

/* Where the socket of one mount of a container lies. */
void socket_path(char path[SOCKET_PATH], const char *container, size_t number);
/* The sockets of one container; NULL: no memory. */
struct sockets *sockets_new(const char *container);
/* Listens at a path, which is removed at the end, for what the daemon knows as `source`. -errno. */
int sockets_listen(struct sockets *sockets, const char *path, const char *source);
void sockets_end(struct sockets *sockets); /* its connections end by themselves; NULL is nothing */

/* From the connection to the daemon. */
void sockets_connected(void);
void sockets_disconnected(void);

#endif
