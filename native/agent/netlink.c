/* rtnetlink without a library. See netlink.h. */
#include "netlink.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { ANSWER_ROOM = 32 << 10, ANSWERS_MOST = 4096, WAIT_SECONDS = 10 };

int netlink_open(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct timeval wait = {.tv_sec = WAIT_SECONDS};
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    return fd;
}

/* Room for `size` bytes, zero padded to the alignment of netlink. */
static void *claim(struct netlink_batch *batch, size_t size)
{
    size_t aligned = NLMSG_ALIGN(size);
    if (batch->overflow || aligned > sizeof batch->data - batch->length) {
        batch->overflow = true;
        return NULL;
    }
    uint8_t *at = batch->data.bytes + batch->length;
    memset(at, 0, aligned);
    batch->length += aligned;
    return at;
}

static struct nlmsghdr *last_message(struct netlink_batch *batch)
{
    return (void *)(batch->data.bytes + batch->message);
}

void netlink_request(struct netlink_batch *batch, uint16_t type, uint16_t flags, const void *fixed,
                     size_t size)
{
    size_t begin = batch->length;
    struct nlmsghdr *header = claim(batch, sizeof *header + size);
    if (!header)
        return;
    batch->message = begin;
    *header = (struct nlmsghdr){.nlmsg_len = (uint32_t)(sizeof *header + size),
                                .nlmsg_type = type,
                                .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags),
                                .nlmsg_seq = batch->count++};
    memcpy(header + 1, fixed, size);
}

void netlink_attribute(struct netlink_batch *batch, uint16_t type, const void *data, size_t size)
{
    struct rtattr *attribute = claim(batch, RTA_LENGTH(size));
    if (!attribute)
        return;
    attribute->rta_type = type;
    attribute->rta_len = (uint16_t)RTA_LENGTH(size);
    memcpy(attribute + 1, data, size);
    last_message(batch)->nlmsg_len = (uint32_t)(batch->length - batch->message);
}

static ssize_t receive(int fd, void *answer, size_t room)
{
    ssize_t got;
    do
        got = recv(fd, answer, room, 0);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

/* Failures are answered as they come, success only for the last, which alone asks for it. */
int netlink_commit(int fd, struct netlink_batch *batch, unsigned *failed)
{
    union {
        struct nlmsghdr header;
        uint8_t bytes[4096];
    } answer;
    *failed = 0;
    if (batch->overflow)
        return -E2BIG;
    if (!batch->count)
        return 0;
    last_message(batch)->nlmsg_flags |= NLM_F_ACK;
    if (send(fd, batch->data.bytes, batch->length, 0) < 0)
        return -errno;
    int error = 0;
    for (unsigned i = 0; i <= batch->count; i++) {
        ssize_t got = receive(fd, &answer, sizeof answer);
        if (got < (ssize_t)(sizeof answer.header + sizeof(struct nlmsgerr)))
            return got < 0 ? (int)got : -EPROTO;
        struct nlmsgerr *result = NLMSG_DATA(&answer.header);
        if (result->error && !error) {
            error = result->error;
            *failed = answer.header.nlmsg_seq;
        }
        if (answer.header.nlmsg_seq == batch->count - 1)
            break;
    }
    return error;
}

static bool has_mac(const struct nlmsghdr *message, const uint8_t mac[MAC_BYTES])
{
    const uint8_t *at = (const uint8_t *)message + NLMSG_LENGTH(sizeof(struct ifinfomsg));
    const uint8_t *end = (const uint8_t *)message + message->nlmsg_len;
    while (end - at >= (ptrdiff_t)sizeof(struct rtattr)) {
        const struct rtattr *attribute = (const void *)at;
        if (attribute->rta_len < sizeof *attribute || attribute->rta_len > end - at)
            break;
        if (attribute->rta_type == IFLA_ADDRESS && attribute->rta_len == RTA_LENGTH(MAC_BYTES))
            return !memcmp(attribute + 1, mac, MAC_BYTES);
        at += RTA_ALIGN(attribute->rta_len);
    }
    return false;
}

/* 1: go on, 0: the dump is over, -errno. */
static int search(const void *answer, size_t length, const uint8_t mac[MAC_BYTES], int *index)
{
    const struct nlmsghdr *message = answer;
    unsigned left = (unsigned)length;
    for (; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
        if (message->nlmsg_type == NLMSG_DONE)
            return 0;
        if (message->nlmsg_type == NLMSG_ERROR)
            return ((const struct nlmsgerr *)NLMSG_DATA(message))->error;
        if (message->nlmsg_type == RTM_NEWLINK && has_mac(message, mac))
            *index = ((const struct ifinfomsg *)NLMSG_DATA(message))->ifi_index;
    }
    return 1;
}

int netlink_find(int fd, const uint8_t mac[MAC_BYTES])
{
    static union {
        struct nlmsghdr header;
        uint8_t bytes[ANSWER_ROOM];
    } answer;
    struct {
        struct nlmsghdr header;
        struct ifinfomsg link;
    } request = {
        .header = {.nlmsg_len = sizeof request,
                   .nlmsg_type = RTM_GETLINK,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
    };
    if (send(fd, &request, sizeof request, 0) < 0)
        return -errno;
    int index = 0, more = 1;
    for (int i = 0; more > 0 && i < ANSWERS_MOST; i++) {
        ssize_t got = receive(fd, &answer, sizeof answer);
        if (got < 0)
            return (int)got;
        more = search(&answer, (size_t)got, mac, &index);
    }
    return more < 0 ? more : index;
}
