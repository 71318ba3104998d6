/* Interfaces. See net.h. */
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "fileio.h"
#include "netlink.h"

#ifndef SIOCGIFINDEX
#define SIOCGIFINDEX 0x8933
#endif

enum { WAIT_MS = 10000, STEP_MS = 2, LOOPBACK = 1, AGENT_PID = 1 };

/* An address with the length of its prefix. */
struct address {
    int family;
    uint8_t bytes[16];
    size_t size;
    uint8_t prefix;
};

static bool parse_address(const char *text, struct address *address)
{
    char plain[64];
    size_t length = strcspn(text, "/");
    snprintf(plain, sizeof plain, "%.*s", (int)length, text);
    *address = (struct address){.family = AF_INET, .size = 4};
    if (strchr(plain, ':'))
        *address = (struct address){.family = AF_INET6, .size = 16};
    unsigned long most = address->size * 8, prefix = most;
    if (text[length]) {
        char *end;
        prefix = strtoul(text + length + 1, &end, 10);
        if (*end || end == text + length + 1)
            return false;
    }
    address->prefix = (uint8_t)prefix;
    return prefix <= most && inet_pton(address->family, plain, address->bytes) == 1;
}

static bool parse_mac(const char *text, uint8_t mac[MAC_BYTES])
{
    unsigned b[MAC_BYTES];
    char rest;
    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &rest) !=
        MAC_BYTES)
        return false;
    for (int i = 0; i < MAC_BYTES; i++)
        mac[i] = (uint8_t)b[i];
    return true;
}

static bool good_name(const char *name)
{
    return *name && strlen(name) < IFNAMSIZ && !strpbrk(name, "/ \t\n:%") && strcmp(name, ".") &&
           strcmp(name, "..");
}

int net_open(void)
{
    return netlink_open();
}

static void link_request(struct netlink_batch *batch, int index, bool up)
{
    struct ifinfomsg link = {.ifi_index = index};
    if (up) {
        link.ifi_flags = IFF_UP;
        link.ifi_change = IFF_UP;
    }
    netlink_request(batch, RTM_NEWLINK, 0, &link, sizeof link);
}

int net_loopback_up(void)
{
    struct netlink_batch batch = {.length = 0};
    unsigned failed;
    int fd = netlink_open();
    if (fd < 0)
        return -errno;
    link_request(&batch, LOOPBACK, true);
    int error = netlink_commit(fd, &batch, &failed);
    close(fd);
    return error;
}

/* Addresses and routes */

static void add_address(struct netlink_batch *batch, int index, const struct address *address)
{
    struct ifaddrmsg message = {.ifa_family = (uint8_t)address->family,
                                .ifa_prefixlen = address->prefix,
                                .ifa_scope = RT_SCOPE_UNIVERSE,
                                .ifa_index = (unsigned)index};
    netlink_request(batch, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &message, sizeof message);
    netlink_attribute(batch, IFA_LOCAL, address->bytes, address->size);
    netlink_attribute(batch, IFA_ADDRESS, address->bytes, address->size);
    if (address->family == AF_INET6) {
        /* The daemon gives addresses out: to look for another owner would only cost a second. */
        uint32_t flags = IFA_F_NODAD;
        netlink_attribute(batch, IFA_FLAGS, &flags, sizeof flags);
    } else if (address->prefix < 31) {
        uint32_t broadcast;
        memcpy(&broadcast, address->bytes, sizeof broadcast);
        broadcast |= htonl(0xffffffffu >> address->prefix);
        netlink_attribute(batch, IFA_BROADCAST, &broadcast, sizeof broadcast);
    }
}

static void add_route(struct netlink_batch *batch, int index, const struct address *to,
                      const struct address *gateway)
{
    struct rtmsg route = {.rtm_family = (uint8_t)to->family,
                          .rtm_dst_len = to->prefix,
                          .rtm_table = RT_TABLE_MAIN,
                          .rtm_protocol = RTPROT_BOOT,
                          .rtm_scope = gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
                          .rtm_type = RTN_UNICAST};
    netlink_request(batch, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &route, sizeof route);
    if (to->prefix)
        netlink_attribute(batch, RTA_DST, to->bytes, to->size);
    if (gateway)
        netlink_attribute(batch, RTA_GATEWAY, gateway->bytes, gateway->size);
    netlink_attribute(batch, RTA_OIF, &index, sizeof index);
}

static int add_default(struct netlink_batch *batch, int index, const char *text)
{
    struct address gateway;
    if (!*text)
        return 0;
    if (!parse_address(text, &gateway))
        return -1;
    add_route(batch, index,
              &(struct address){.family = gateway.family, .size = gateway.size}, &gateway);
    return 0;
}

static int add_routes(struct netlink_batch *batch, int index, const struct nic_spec *nic)
{
    for (size_t i = 0; i < nic->route_count; i++) {
        struct address to, gateway;
        const struct route_spec *route = &nic->routes[i];
        bool has_gateway = *route->gateway;
        if (!parse_address(route->destination, &to) ||
            (has_gateway && !parse_address(route->gateway, &gateway)))
            return -1;
        add_route(batch, index, &to, has_gateway ? &gateway : NULL);
    }
    return add_default(batch, index, nic->gateway4) || add_default(batch, index, nic->gateway6) ? -1
                                                                                                : 0;
}

static int bad_nic(const struct nic_spec *nic, struct failure *failure)
{
    return fail(failure, STAGE_NETWORK, EINVAL, "invalid interface %s (%s)", nic->name, nic->mac);
}

static void set_ipv6_value(const char *name, const char *key, const char *value)
{
    char path[96];
    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/%s", name, key);
    write_file(AT_FDCWD, path, value);
}

/* As libnetwork: an interface without an IPv6 address has none of its own making either. A kernel
 * without IPv6 has no such files. */
static void set_ipv6(const struct nic_spec *nic, bool wanted)
{
    set_ipv6_value(nic->name, "disable_ipv6", wanted ? "0" : "1");
    if (wanted)
        set_ipv6_value(nic->name, "accept_ra", "0");
}

static int configure(int fd, int index, const struct nic_spec *nic, struct failure *failure)
{
    struct netlink_batch batch = {.length = 0};
    struct address address;
    unsigned failed;
    bool ipv6 = false;
    link_request(&batch, index, true);
    if (nic->mtu)
        netlink_attribute(&batch, IFLA_MTU, &nic->mtu, sizeof nic->mtu);
    for (size_t i = 0; i < nic->addresses.count; i++) {
        if (!parse_address(nic->addresses.items[i], &address))
            return bad_nic(nic, failure);
        ipv6 |= address.family == AF_INET6;
        add_address(&batch, index, &address);
    }
    if (add_routes(&batch, index, nic))
        return bad_nic(nic, failure);
    set_ipv6(nic, ipv6);
    int error = netlink_commit(fd, &batch, &failed);
    if (!error)
        return 0;
    return fail_errno(failure, STAGE_NETWORK, -error, "%s of interface %s",
                      !failed                              ? "setting up"
                      : failed <= nic->addresses.count ? "adding an address"
                                                           : "adding a route",
                      nic->name);
}

/* Finding and moving */

static int wait_for(int fd, const uint8_t mac[MAC_BYTES])
{
    int index = netlink_find(fd, mac);
    for (int waited = 0; !index && waited < WAIT_MS; waited += STEP_MS) {
        nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000}, NULL);
        index = netlink_find(fd, mac);
    }
    return index;
}

static int move(int fd, int index, const char *name, uint32_t pid)
{
    struct netlink_batch batch = {.length = 0};
    struct ifinfomsg link = {.ifi_index = index, .ifi_change = IFF_UP};
    unsigned failed;
    netlink_request(&batch, RTM_NEWLINK, 0, &link, sizeof link);
    netlink_attribute(&batch, IFLA_NET_NS_PID, &pid, sizeof pid);
    netlink_attribute(&batch, IFLA_IFNAME, name, strlen(name) + 1);
    return netlink_commit(fd, &batch, &failed);
}

static int index_of(int fd, const char *name)
{
    struct ifreq request = {.ifr_ifindex = 0};
    snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    return ioctl(fd, SIOCGIFINDEX, &request) ? -errno : request.ifr_ifindex;
}

static int fetch(int guest, int here, const struct nic_spec *nic, bool fresh,
                 struct failure *failure)
{
    uint8_t mac[MAC_BYTES];
    if (!good_name(nic->name) || !parse_mac(nic->mac, mac))
        return bad_nic(nic, failure);
    int index = fresh ? 0 : netlink_find(here, mac);
    if (index > 0)
        return configure(here, index, nic, failure);
    index = wait_for(guest, mac);
    if (index <= 0)
        return fail_errno(failure, STAGE_NETWORK, index ? -index : ENODEV,
                          "interface %s (%s) did not appear", nic->name, nic->mac);
    int error = move(guest, index, nic->name, (uint32_t)getpid());
    if (!error)
        error = (index = index_of(here, nic->name)) < 0 ? index : 0;
    if (error)
        return fail_errno(failure, STAGE_NETWORK, -error, "moving interface %s (%s)", nic->name,
                          nic->mac);
    return configure(here, index, nic, failure);
}

int net_setup(int guest, const struct nic_spec *nics, size_t count, bool loopback,
              struct failure *failure)
{
    int here = netlink_open();
    if (here < 0)
        return fail_errno(failure, STAGE_NETWORK, errno, "opening a netlink socket");
    int result = 0;
    if (loopback) {
        struct netlink_batch batch = {.length = 0};
        unsigned failed;
        link_request(&batch, LOOPBACK, true);
        int error = netlink_commit(here, &batch, &failed);
        if (error)
            result = fail_errno(failure, STAGE_NETWORK, -error, "setting up loopback");
    }
    for (size_t i = 0; i < count && !result; i++)
        result = fetch(guest, here, &nics[i], loopback, failure);
    close(here);
    return result;
}

int net_give_back(const struct nic_spec *nic, struct failure *failure)
{
    uint8_t mac[MAC_BYTES];
    char name[IFNAMSIZ];
    if (!parse_mac(nic->mac, mac))
        return bad_nic(nic, failure);
    int here = netlink_open();
    int index = here < 0 ? -errno : netlink_find(here, mac);
    int error = index > 0 ? 0 : index ? index : -ENODEV;
    /* A name that no other interface of the guest has. */
    snprintf(name, sizeof name, "n%02x%02x%02x%02x%02x%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
             mac[5]);
    if (!error)
        error = move(here, index, name, AGENT_PID);
    if (here >= 0)
        close(here);
    return error ? fail_errno(failure, STAGE_NETWORK, -error, "taking interface %s away", nic->mac)
                 : 0;
}
