/* What busybox can't show of a container, for tests/integration/agent: a static program in a layer.
 * usage: probe listen PORT       binds UDP and TCP, says "bound", waits
 *        probe ask ADDRESS PORT  sends stdin unconnected, says where the answer comes from
 *        probe flood ADDRESS PORT COUNT
 *        probe ptrace PID        says whether the process can be looked into
 *        probe lease PATH        takes a lease on a file, says "leased", keeps it */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static struct sockaddr_in address(const char *host, const char *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    inet_pton(AF_INET, host, &at.sin_addr);
    return at;
}

static int fail(const char *what)
{
    printf("%s: %s\n", what, strerror(errno));
    return 1;
}

static int listen_at(const char *port)
{
    struct sockaddr_in at = address("0.0.0.0", port);
    int udp = socket(AF_INET, SOCK_DGRAM, 0), tcp = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(udp, (struct sockaddr *)&at, sizeof at))
        return fail("udp");
    if (bind(tcp, (struct sockaddr *)&at, sizeof at) || listen(tcp, 1))
        return fail("tcp");
    puts("bound");
    fflush(stdout);
    return pause();
}

static int ask(const char *host, const char *port)
{
    char data[2048], name[INET_ADDRSTRLEN];
    struct sockaddr_in at = address(host, port);
    socklen_t size = sizeof at;
    struct timeval wait = {.tv_sec = 5};
    ssize_t length = read(0, data, sizeof data);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    if (length < 0 || sendto(fd, data, (size_t)length, 0, (struct sockaddr *)&at, sizeof at) < 0)
        return fail("sendto");
    length = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&at, &size);
    if (length < 0)
        return fail("recvfrom");
    inet_ntop(AF_INET, &at.sin_addr, name, sizeof name);
    printf("%zd bytes from %s:%u\n", length, name, ntohs(at.sin_port));
    return 0;
}

static int flood(const char *host, const char *port, int count)
{
    char data[600] = "flood";
    struct sockaddr_in at = address(host, port);
    int fd = socket(AF_INET, SOCK_DGRAM, 0), sent = 0;
    for (int i = 0; i < count; i++)
        sent += sendto(fd, data, (size_t)i % sizeof data, 0, (struct sockaddr *)&at, sizeof at) >= 0;
    printf("%d sent\n", sent);
    return 0;
}

static int look_into(const char *pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/mem", pid);
    if (open(path, O_RDONLY) < 0)
        return fail("mem");
    puts("open");
    return 0;
}

static int lease(const char *path)
{
    int fd = open(path, O_RDONLY);
    signal(SIGIO, SIG_IGN); /* by which the kernel asks to give it back */
    if (fd < 0 || fcntl(fd, F_SETLEASE, F_RDLCK))
        return fail("lease");
    puts("leased");
    fflush(stdout);
    return pause();
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "listen"))
        return listen_at(argv[2]);
    if (argc == 4 && !strcmp(argv[1], "ask"))
        return ask(argv[2], argv[3]);
    if (argc == 5 && !strcmp(argv[1], "flood"))
        return flood(argv[2], argv[3], atoi(argv[4]));
    if (argc == 3 && !strcmp(argv[1], "ptrace"))
        return look_into(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "lease"))
        return lease(argv[2]);
    return 2;
}
