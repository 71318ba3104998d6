/* Packets between a child that sets up a process and the agent. See launch.h. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "launch.h"

enum { FDS_MOST = 2 };

int report_send(int status, const struct report *report, const int *fds, size_t count)
{
    /* A container's own seccomp filter is more likely to let write(2) pass than sendmsg(2). */
    if (!count)
        return write(status, report, sizeof *report) == (ssize_t)sizeof *report ? 0 : -1;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(FDS_MOST * sizeof(int))];
    } control = {0};
    struct iovec part = {(void *)(uintptr_t)report, sizeof *report};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    return sendmsg(status, &message, MSG_NOSIGNAL) == (ssize_t)sizeof *report ? 0 : -1;
}

ssize_t report_receive(int status, struct report *report, int *fds, size_t *count)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(FDS_MOST * sizeof(int))];
    } control = {0};
    struct iovec part = {report, sizeof *report};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t got = recvmsg(status, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    size_t room = *count;
    *count = 0;
    if (!header || header->cmsg_type != SCM_RIGHTS)
        return got;
    *count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    if (*count > room)
        *count = room;
    memcpy(fds, CMSG_DATA(header), *count * sizeof(int));
    return got;
}
