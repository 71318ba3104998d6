/* ports PIDFILE UID [CGROUP.PROCS ...] -- FD,tcp|udp,ADDRESS,PORT ...
 *
 * Every FD is a bound (tcp: listening) socket that was inherited. Returns once the helper serves;
 * the helper itself is then nobody's child. */
#include "ports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

static struct listener listeners[MAX_LISTENERS];
static size_t listener_count;
static int poller = -1;

_Noreturn void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    _exit(1);
}

static _Noreturn void refuse(const char *word)
{
    fprintf(stderr, "not understood: %s\n", word);
    _exit(1);
}

void watch(int fd, uint32_t events, struct watched *watched, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = watched};
    if (epoll_ctl(poller, operation, fd, &event) && errno != ENOSPC && errno != ENOMEM)
        _exit(2);
}

static long number(const char *text, long last, const char *word)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < 0 || value > last)
        refuse(word);
    return value;
}

static void set_target(struct listener *listener, const char *address, long port, const char *word)
{
    struct sockaddr_in *four = (struct sockaddr_in *)&listener->target;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&listener->target;
    if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)port);
        listener->target_size = sizeof *four;
    } else if (inet_pton(AF_INET6, address, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)port);
        listener->target_size = sizeof *six;
    } else {
        refuse(word);
    }
}

static void add_listener(const char *word)
{
    char copy[128], *rest = copy;
    if (listener_count == MAX_LISTENERS || strlen(word) >= sizeof copy)
        refuse(word);
    strcpy(copy, word);
    const char *fd = strsep(&rest, ","), *protocol = strsep(&rest, ",");
    const char *address = strsep(&rest, ","), *port = rest;
    if (!protocol || !address || !port)
        refuse(word);
    struct listener *listener = &listeners[listener_count++];
    listener->fd = (int)number(fd, 1 << 20, word);
    listener->datagrams = !strcmp(protocol, "udp");
    if (!listener->datagrams && strcmp(protocol, "tcp"))
        refuse(word);
    listener->watched.ready = listener->datagrams ? udp_receive : tcp_accept;
    set_target(listener, address, number(port, 65535, word), word);
    if (fcntl(listener->fd, F_SETFL, O_NONBLOCK))
        die(word);
}

static void loop(void)
{
    struct epoll_event events[64];
    for (;;) {
        int count = epoll_wait(poller, events, 64, udp_has_flows() ? SWEEP_MS : -1);
        for (int i = 0; i < count; i++) {
            struct watched *watched = events[i].data.ptr;
            watched->ready(watched, events[i].events);
        }
        tcp_collect(listeners, listener_count);
        udp_sweep();
    }
}

static void leave_stdio(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
        die("/dev/null");
}

/* When the host's memory ends, what belongs to a machine goes before the daemon (platform/jail.py). */
static void leave_protection(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "100", 3) != 3)
        die("oom_score_adj");
    close(fd);
}

static _Noreturn void serve(const char *pidfile, uid_t uid, char **cgroups, size_t count, int ready)
{
    signal(SIGPIPE, SIG_IGN);
    if (setsid() < 0 || chdir("/"))
        die("session");
    join_cgroups(cgroups, count);
    leave_protection();
    write_pidfile(pidfile);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0)
        die("epoll");
    for (size_t i = 0; i < listener_count; i++)
        watch(listeners[i].fd, EPOLLIN, &listeners[i].watched, EPOLL_CTL_ADD);
    drop_privileges(uid, listener_count);
    leave_stdio();
    if (write(ready, "r", 1) != 1)
        _exit(1);
    close(ready);
    forbid_system_calls();
    loop();
    _exit(0);
}

int main(int argc, char **argv)
{
    int first = 3;
    while (first < argc && strcmp(argv[first], "--"))
        first++;
    if (first + 1 >= argc)
        refuse("usage: ports PIDFILE UID [CGROUP.PROCS ...] -- FD,PROTOCOL,ADDRESS,PORT ...");
    uid_t uid = (uid_t)number(argv[2], 0x7FFFFFFF, argv[2]);
    for (int i = first + 1; i < argc; i++)
        add_listener(argv[i]);
    int ready[2];
    if (pipe2(ready, O_CLOEXEC))
        die("pipe");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        close(ready[0]);
        serve(argv[1], uid, argv + 3, (size_t)(first - 3), ready[1]);
    }
    close(ready[1]);
    char byte;
    if (read(ready[0], &byte, 1) == 1)
        _exit(0);
    waitpid(child, NULL, 0);
    return 1;
}
