/* The private link to the daemon (docs/agent-protocol.md, "Channel"): the interface is found by its
 * MAC, gets its address and the daemon's as a permanent neighbour, and is listened on. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest.h"
#include "messages.h"

enum { MAC = 6, INTERFACES = 64, WAIT_MS = 10000, BACKLOG = 8 };

static const unsigned char guest_mac[MAC] = {0x02, 0x48, 0x59, 0x50, 0x00, 0x01};
static const unsigned char host_mac[MAC] = {0x02, 0x48, 0x59, 0x50, 0x00, 0x02};

/* Whether interface number `index` is the private one; then request holds its name. */
static bool is_private(int sock, int index, struct ifreq *request)
{
    request->ifr_ifindex = index;
    return !ioctl(sock, SIOCGIFNAME, request) && !ioctl(sock, SIOCGIFHWADDR, request) &&
           request->ifr_hwaddr.sa_family == ARPHRD_ETHER &&
           !memcmp(request->ifr_hwaddr.sa_data, guest_mac, MAC);
}

/* It may appear a little after the agent has started. */
static bool find(int sock, struct ifreq *request)
{
    for (int waited = 0, step = 1; waited < WAIT_MS; waited += step, step += step < 20) {
        for (int index = 1; index <= INTERFACES; index++)
            if (is_private(sock, index, request))
                return true;
        poll(NULL, 0, step);
    }
    return false;
}

static void put_address(struct sockaddr *into, const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    inet_pton(AF_INET, text, &address.sin_addr);
    memcpy(into, &address, sizeof address);
}

/* Nobody speaks IPv6 here: no addresses, no solicitations. */
static void without_ipv6(const char *name)
{
    char path[96];
    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%.16s/disable_ipv6", name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (write(fd, "1", 1) < 0)
            console_line("hyper-agent: %s: %s", path, strerror(errno));
        close(fd);
    }
}

static int set_up(int sock, const char *name, const char *address, const char *mask)
{
    struct ifreq request = {0};
    memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
    if (address) {
        put_address(&request.ifr_addr, address);
        if (ioctl(sock, SIOCSIFADDR, &request))
            return -errno;
        put_address(&request.ifr_netmask, mask);
        if (ioctl(sock, SIOCSIFNETMASK, &request))
            return -errno;
    }
    request.ifr_flags = IFF_UP;
    return ioctl(sock, SIOCSIFFLAGS, &request) ? -errno : 0;
}

static int add_neighbour(int sock, const char *name)
{
    struct arpreq request = {.arp_flags = ATF_PERM | ATF_COM};
    put_address(&request.arp_pa, HYPER_HOST_ADDRESS);
    memcpy(request.arp_ha.sa_data, host_mac, MAC);
    memcpy(request.arp_dev, name, strnlen(name, sizeof request.arp_dev - 1));
    return ioctl(sock, SIOCSARP, &request) ? -errno : 0;
}

static int listen_on(const char *name)
{
    struct sockaddr_in address;
    int on = 1, sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (sock < 0)
        return -errno;
    put_address((struct sockaddr *)&address, HYPER_GUEST_ADDRESS);
    address.sin_port = htons(HYPER_PORT);
    /* Bound to the device too: a container that finds a route to the address is not heard. */
    if (setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
        setsockopt(sock, SOL_SOCKET, SO_BINDTODEVICE, name, (socklen_t)strlen(name)) ||
        bind(sock, (struct sockaddr *)&address, sizeof address) || listen(sock, BACKLOG)) {
        int error = -errno;
        close(sock);
        return error;
    }
    return sock;
}

int private_link(void)
{
    _Static_assert(HYPER_PREFIX == 30, "the mask below");
    struct ifreq request = {0};
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0)
        return -errno;
    int error = set_up(sock, "lo", NULL, NULL);
    if (!error && !find(sock, &request))
        error = -ENODEV;
    if (!error) {
        without_ipv6(request.ifr_name);
        error = set_up(sock, request.ifr_name, HYPER_GUEST_ADDRESS, "255.255.255.252");
    }
    if (!error)
        error = add_neighbour(sock, request.ifr_name);
    close(sock);
    return error ? error : listen_on(request.ifr_name);
}
