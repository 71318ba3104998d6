/* PID 1 of a guest that breaks the agent protocol on purpose (docs/agent-protocol.md). What it does
 * is the word in the file /mode of the guest's root; it is polite until its container was started. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <unistd.h>

#include "messages.h"

static char mode[64];
static int client = -1;
static uint8_t container[64];
static bool started;

static bool is(const char *word)
{
    return !strcmp(mode, word);
}

static void say(const char *text, size_t length)
{
    int fd = open("/dev/console", O_WRONLY | O_NOCTTY);
    if (fd >= 0 && write(fd, text, length) < 0)
        errno = 0;
    close(fd);
}

static bool put(const void *data, size_t length)
{
    const uint8_t *at = data;
    while (length) {
        ssize_t sent = send(client, at, length, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        at += sent;
        length -= (size_t)sent;
    }
    return true;
}

static void header(uint8_t out[16], uint32_t length, uint8_t type, uint16_t code, uint64_t id)
{
    memcpy(out, &length, 4);
    out[4] = type;
    out[5] = 0;
    memcpy(out + 6, &code, 2);
    memcpy(out + 8, &id, 8);
}

static bool frame(uint8_t type, uint16_t code, uint64_t id, const void *data, size_t length)
{
    uint8_t head[16];
    header(head, (uint32_t)length, type, code, id);
    return put(head, 16) && (!length || put(data, length));
}

/* A message under construction. */
static uint8_t message[1 << 22];
static size_t used;

static void field(uint16_t tag, const void *data, uint32_t length)
{
    memcpy(message + used, &tag, 2);
    memset(message + used + 2, 0, 2);
    memcpy(message + used + 4, &length, 4);
    memcpy(message + used + 8, data, length);
    used += 8 + length;
}

static void number(uint16_t tag, int64_t value)
{
    field(tag, &value, 8);
}

static const char hostile[] = "../../\x1b[2J\x1b]0;owned\x07\r\n2026-01-01T00:00:00.000 INFO forged: line "
                              "\xff\xfe\xed\xb0\x80\xe2\x80\xae";

static void text(uint16_t tag)
{
    field(tag, hostile, sizeof hostile - 1);
}

/* Bytes for each stream for which the daemon gives credit. */
static bool stream_data(uint64_t stream, uint64_t from, uint64_t limit, size_t piece)
{
    static uint8_t data[8 + HYPER_MAX_DATA];
    while (from < limit) {
        uint64_t size = limit - from < piece ? limit - from : piece;
        memcpy(data, &from, 8);
        if (!frame(FRAME_DATA, 0, stream, data, 8 + size))
            return false;
        from += size;
    }
    return true;
}

static bool on_credit(uint64_t stream, uint64_t limit)
{
    static uint64_t sent[64];
    uint64_t *from = &sent[stream % 64];
    bool more = is("beyond-credit"), tiny = is("tiny-data");
    if (!more && !tiny && !is("endless-tar"))
        return true;
    bool good = stream_data(stream, *from, limit + (more ? 100000 : 0), tiny ? 1 : HYPER_MAX_DATA);
    *from = limit;
    return good;
}

static void processes(int count, int64_t first)
{
    used = 0;
    for (int i = 0; i < count && used < sizeof message - 64; i++) {
        uint8_t inner[16] = {F_PROCESS_STATE_HANDLE};
        uint32_t length = 8;
        int64_t handle = first + i;
        memcpy(inner + 4, &length, 4);
        memcpy(inner + 8, &handle, 8);
        field(F_STATE_PROCESSES, inner, sizeof inner);
    }
}

static void tasks(int count)
{
    used = 0;
    for (int i = 0; i < count; i++) {
        uint8_t inner[8 + 16] = {F_TASK_COMM};
        uint32_t length = 16;
        memcpy(inner + 4, &length, 4);
        memcpy(inner + 8, hostile + 6, 16);
        field(F_TOP_TASKS, inner, sizeof inner);
    }
}

static void path_stat(void)
{
    used = 0;
    text(F_PATH_STAT_NAME);
    number(F_PATH_STAT_SIZE, INT64_MIN);
    number(F_PATH_STAT_MODE, -1);
    number(F_PATH_STAT_MTIME_NS, INT64_MIN);
    text(F_PATH_STAT_LINK_TARGET);
}

static void changes(void)
{
    uint8_t inner[8 + sizeof hostile - 1] = {F_CHANGE_PATH};
    uint32_t length = sizeof hostile - 1;
    memcpy(inner + 4, &length, 4);
    memcpy(inner + 8, hostile, length);
    used = 0;
    for (int i = 0; i < 1000; i++)
        field(F_CHANGES_CHANGES, inner, sizeof inner);
}

static void stats(void)
{
    used = 0;
    for (uint16_t tag = 1; tag <= 17; tag++)
        if (tag != F_STATS_MEMORY_STAT && tag != F_STATS_NICS)
            number(tag, tag % 2 ? INT64_MIN : INT64_MAX);
    text(F_STATS_MEMORY_STAT);
}

static bool reply(uint16_t op, uint64_t request)
{
    used = 0;
    if (op == OP_CONTAINER_START && is("refuses")) {
        number(F_FAILURE_STAGE, 1 << 30);
        text(F_FAILURE_DETAIL);
        return frame(FRAME_REPLY, 65535, request, message, used);
    }
    if (started && is("mute"))
        return true;
    if (op == OP_CONTAINER_START && is("odd-numbers"))
        number(F_STARTED_STARTED_NS, INT64_MAX), number(F_STARTED_PID, INT64_MIN);
    if (op == OP_LIST && is("crowd"))
        processes(100000, 1);
    if (op == OP_LIST && is("wild-handles"))
        processes(3, INT64_MAX - 5);
    if (op == OP_LIST && is("many-ended"))
        processes(4000, 1);
    if (op == OP_RELEASE && is("many-ended"))
        return true;
    if (op == OP_TOP)
        tasks(100000);
    if (op == OP_STATS)
        stats();
    if (op == OP_CHANGES)
        changes();
    if (op == OP_ARCHIVE_STAT || op == OP_ARCHIVE_GET)
        path_stat();
    return frame(FRAME_REPLY, 0, request, message, used);
}

/* What it does, over and over, once its container was started. False: not that. */
static bool flood(void)
{
    used = 0;
    if (is("exits")) {
        number(F_PROCESS_STATE_HANDLE, 1 << 20);
        return frame(FRAME_EVENT, EVENT_KIND_EXIT, 0, message, used);
    }
    if (is("ooms")) {
        field(F_CONTAINER_REF_ID, container, sizeof container);
        return frame(FRAME_EVENT, EVENT_KIND_OOM, 0, message, used);
    }
    if (is("questions")) {
        static const uint8_t query[] = "\x12\x34\1\0\0\1\0\0\0\0\0\0\7example\7invalid\0\0\1\0\1";
        static int64_t count;
        field(F_DNS_CONTAINER, container, sizeof container);
        number(F_DNS_QUERY, ++count);
        field(F_DNS_MESSAGE, query, sizeof query - 1);
        return frame(FRAME_EVENT, EVENT_KIND_DNS_QUERY, 0, message, used);
    }
    if (is("sockets")) { /* the one that it was given, and others */
        static const char *const sources[] = {"/m0", "/m7", "m0", "/var/run/docker.sock", "/../m0"};
        static int64_t count;
        const char *source = sources[++count % 5];
        field(F_SOCKET_OPEN_CONTAINER, container, sizeof container);
        field(F_SOCKET_OPEN_SOURCE, source, (uint32_t)strlen(source));
        number(F_SOCKET_OPEN_CONNECTION, count);
        return frame(FRAME_EVENT, EVENT_KIND_SOCKET_OPEN, 0, message, used);
    }
    if (is("credits")) {
        uint64_t pair[2] = {0, 1 << 20};
        static uint64_t stream = 1000;
        return frame(FRAME_CREDIT, 0, ++stream, pair, sizeof pair);
    }
    if (is("random-frames")) {
        uint8_t noise[512];
        if (getrandom(noise, sizeof noise, 0) < 0)
            return false;
        return frame(1 + noise[0] % 8, noise[1] % 4, noise[2] % 16, noise + 8, noise[3]);
    }
    return false;
}

static void misbehave(void)
{
    uint8_t head[16];
    used = 0;
    if (is("giant-length")) {
        header(head, UINT32_MAX, FRAME_EVENT, EVENT_KIND_EXIT, 0);
        put(head, 16);
    } else if (is("largest-reply-unasked")) {
        frame(FRAME_REPLY, 0, 12345, message, sizeof message);
    } else if (is("second-hello")) {
        frame(FRAME_HELLO, HYPER_VERSION, 7, NULL, 0);
    } else if (is("odd-numbers")) {
        number(F_PROCESS_STATE_HANDLE, 1);
        number(F_PROCESS_STATE_CODE, INT64_MAX);
        number(F_PROCESS_STATE_SIGNAL, INT64_MIN);
        number(F_PROCESS_STATE_FINISHED_NS, INT64_MIN);
        frame(FRAME_EVENT, EVENT_KIND_EXIT, 0, message, used);
    }
}

static bool take(void *data, size_t length)
{
    uint8_t *at = data;
    while (length) {
        ssize_t got = recv(client, at, length, 0);
        if (got <= 0)
            return false;
        at += got;
        length -= (size_t)got;
    }
    return true;
}

static bool one_frame(void)
{
    static uint8_t body[HYPER_MAX_MESSAGE + 64];
    uint8_t head[16];
    uint32_t length;
    uint16_t code;
    uint64_t id, pair[2];
    if (!take(head, 16))
        return false;
    memcpy(&length, head, 4);
    memcpy(&code, head + 6, 2);
    memcpy(&id, head + 8, 8);
    if (length > sizeof body || !take(body, length))
        return false;
    if (head[4] == FRAME_CREDIT) {
        memcpy(pair, body, 16);
        return on_credit(id, pair[1]);
    }
    if (head[4] != FRAME_REQUEST)
        return true;
    if (code == OP_CONTAINER_START)
        memcpy(container, body + 8, sizeof container); /* the first field is the id */
    if (code == OP_POWEROFF)
        reboot(RB_POWER_OFF);
    bool good = reply(code, id);
    if (code == OP_CONTAINER_START && good) {
        started = true;
        misbehave();
        if (is("closes-later"))
            return false;
    }
    return good;
}

static void serve(void)
{
    if (is("closes-at-once") || (started && is("closes-later"))) {
        usleep(1000);
        return;
    }
    if (is("silent")) {
        sleep(1000);
        return;
    }
    if (!frame(FRAME_HELLO, HYPER_VERSION, 7, NULL, 0))
        return;
    for (;;) {
        struct pollfd ready = {.fd = client, .events = POLLIN};
        bool busy = started && flood();
        if (poll(&ready, 1, busy ? 0 : 100) < 0 || (ready.revents && !one_frame()))
            return;
        if (started && is("talks-on-console"))
            for (int i = 0; i < 100; i++)
                say(hostile, sizeof hostile - 1);
    }
}

static void network(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct ifreq request = {.ifr_name = "vec0"};
    inet_pton(AF_INET, HYPER_GUEST_ADDRESS, &address.sin_addr);
    memcpy(&request.ifr_addr, &address, sizeof address);
    ioctl(fd, SIOCSIFADDR, &request);
    inet_pton(AF_INET, "255.255.255.252", &address.sin_addr);
    memcpy(&request.ifr_netmask, &address, sizeof address);
    ioctl(fd, SIOCSIFNETMASK, &request);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    ioctl(fd, SIOCSIFFLAGS, &request);
    struct arpreq arp = {.arp_flags = ATF_COM | ATF_PERM, .arp_dev = "vec0"};
    inet_pton(AF_INET, HYPER_HOST_ADDRESS, &address.sin_addr);
    memcpy(&arp.arp_pa, &address, sizeof address);
    arp.arp_ha.sa_family = ARPHRD_ETHER;
    memcpy(arp.arp_ha.sa_data, "\x02\x48\x59\x50\x00\x02", 6);
    ioctl(fd, SIOCSARP, &arp);
    close(fd);
}

int main(void)
{
    mount("dev", "/dev", "devtmpfs", 0, "");
    int fd = open("/mode", O_RDONLY);
    if (fd < 0 || read(fd, mode, sizeof mode - 1) < 0)
        reboot(RB_POWER_OFF);
    signal(SIGPIPE, SIG_IGN);
    network();
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(HYPER_PORT)};
    if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 8))
        reboot(RB_POWER_OFF);
    say(HYPER_READY "\n", sizeof HYPER_READY);
    while ((client = accept(listening, NULL, NULL)) >= 0) {
        serve();
        close(client);
    }
    reboot(RB_POWER_OFF);
}
