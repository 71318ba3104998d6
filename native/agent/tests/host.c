/* agent-test SOCKET ROOT [LISTEN]: the agent's core as a program of the host, for tests/unit/guest. It speaks
 * the protocol on a Unix socket; "containers" are plain processes in no container at all, and ROOT
 * stands for the root of each of them in archive operations. LISTEN is a path at which it offers the
 * socket "/m0" of the host to container "c". */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "container.h"
#include "link.h"
#include "loop.h"
#include "process.h"
#include "reap.h"
#include "request.h"
#include "sockets.h"

enum { WORDS = 64, WORD = 1 << 16 };

struct container {
    char id[65];
};

/* One is enough: the last that was started or asked for. */
static struct container container;
static const char *root;

struct container *container_find(const char *id)
{
    return !strcmp(id, container.id) ? &container : NULL;
}

void container_each(void (*fn)(void *context, const char *id), void *context)
{
    if (*container.id)
        fn(context, container.id);
}

int container_root_fd(const struct container *asked)
{
    (void)asked;
    int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int container_upper_fd(const struct container *asked)
{
    (void)asked;
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int container_layer_fds(const struct container *asked, int *fds, size_t most)
{
    (void)asked, (void)fds, (void)most;
    return 0;
}

void container_ended(struct container *ended, void (*done)(void *context), void *context)
{
    (void)ended;
    if (!loop_after(1, done, context))
        done(context);
}

bool container_oom(const struct container *asked)
{
    (void)asked;
    return false;
}

/* Processes */

struct start {
    struct process_names names;
    char *argv[WORDS + 1];
    size_t argc;
};

static uint32_t id_of(struct reader *reader, const struct field *field)
{
    return (uint32_t)field_number(reader, field);
}

static void read_process(struct reader *reader, struct start *start)
{
    struct field field;
    while (reader_next(reader, &field)) {
        switch (field.tag) {
        case F_PROCESS_HANDLE:
            start->names.handle = id_of(reader, &field);
            break;
        case F_PROCESS_ARGV:
            if (start->argc < WORDS)
                start->argv[start->argc++] = field_text(reader, &field, WORD);
            break;
        case F_PROCESS_TTY:
            start->names.tty = field_flag(reader, &field);
            break;
        case F_PROCESS_STDIN:
            start->names.stdin_id = id_of(reader, &field);
            break;
        case F_PROCESS_STDOUT:
            start->names.stdout_id = id_of(reader, &field);
            break;
        case F_PROCESS_STDERR:
            start->names.stderr_id = id_of(reader, &field);
            break;
        default:
            reader->bad = true;
        }
    }
}

static _Noreturn void run(char **argv, const int fds[3])
{
    child_signals();
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i < 3; i++)
        dup2(fds[i], i);
    execvp(argv[0], argv);
    _exit(127);
}

static pid_t start_terminal(struct process *process, char **argv)
{
    int master;
    pid_t pid = forkpty(&master, NULL, NULL, NULL);
    if (!pid) {
        child_signals();
        execvp(argv[0], argv);
        _exit(127);
    }
    if (pid > 0)
        process_terminal(process, master);
    return pid;
}

static pid_t start_pipes(struct process *process, char **argv)
{
    int fds[3];
    int error = process_pipes(process, fds);
    if (error) {
        errno = -error;
        return -1;
    }
    pid_t pid = fork();
    if (!pid)
        run(argv, fds);
    return pid;
}

static void start(struct request request, struct start *wanted)
{
    struct process *process = process_new(&wanted->names);
    if (!process) {
        reply_failure(request, errno, STAGE_OTHER, "the process can't be made");
        return;
    }
    pid_t pid = wanted->names.tty ? start_terminal(process, wanted->argv)
                                  : start_pipes(process, wanted->argv);
    if (pid < 0) {
        reply_failure(request, errno, STAGE_EXEC, "fork");
        process_discard(process);
        return;
    }
    struct writer message = {0};
    int64_t now = wall_clock_ns();
    process_started(process, pid, now);
    write_number(&message, F_STARTED_PID, pid);
    write_number(&message, F_STARTED_STARTED_NS, now);
    reply(request, &message);
}

/* Container and Exec have their id in field 1; their process is in another one each. */
static void handle_start(struct request request, struct reader *payload, uint16_t tag, bool init)
{
    static struct start wanted;
    struct field field;
    struct reader inner;
    wanted = (struct start){.names = {.init = init}};
    while (reader_next(payload, &field)) {
        if (field.tag == F_EXEC_CONTAINER) {
            char *id = field_text(payload, &field, 64);
            snprintf(wanted.names.container, sizeof wanted.names.container, "%s", id ? id : "");
            free(id);
        } else if (field.tag == tag) {
            field_message(payload, &field, &inner);
            read_process(&inner, &wanted);
            payload->bad |= inner.bad;
        } else {
            payload->bad = true;
        }
    }
    payload->bad |= !wanted.argc;
    if (!payload->bad) {
        memcpy(container.id, wanted.names.container, sizeof container.id);
        start(request, &wanted);
    }
    for (size_t i = 0; i < wanted.argc; i++)
        free(wanted.argv[i]);
}

void handle_container_start(struct request request, struct reader *payload)
{
    handle_start(request, payload, F_CONTAINER_PROCESS, true);
}

void handle_exec(struct request request, struct reader *payload)
{
    handle_start(request, payload, F_EXEC_PROCESS, false);
}

/* What only a guest can do */

static void impossible(struct request request, struct reader *payload)
{
    (void)payload;
    reply_failure(request, ENOTSUP, STAGE_OTHER, "only a guest can do this");
}

void handle_ping(struct request request, struct reader *payload)
{
    struct field field;
    payload->bad |= reader_next(payload, &field);
    if (!payload->bad)
        reply(request, NULL);
}

/* Answers as late as 20 ms after the request, out of turn. */
static void late(void *context)
{
    struct request *request = context;
    reply(*request, NULL);
    free(request);
}

void handle_trim(struct request request, struct reader *payload)
{
    (void)payload;
    struct request *kept = malloc(sizeof *kept);
    if (!kept)
        return;
    *kept = request;
    loop_after(20, late, kept);
}

/* Sends what came back as an event. */
void handle_dns_answer(struct request request, struct reader *payload)
{
    struct writer message = {0};
    write_bytes(&message, F_DNS_MESSAGE, payload->at, (size_t)(payload->end - payload->at));
    reply(request, NULL);
    send_event(EVENT_KIND_DNS_QUERY, &message);
}

void handle_poweroff(struct request request, struct reader *payload)
{
    (void)payload;
    reply(request, NULL);
    link_finish(500);
    exit(0);
}

#define IMPOSSIBLE(name)                                             \
    void name(struct request request, struct reader *payload)        \
    {                                                                \
        impossible(request, payload);                                \
    }
IMPOSSIBLE(handle_setup)
IMPOSSIBLE(handle_root_mount)
IMPOSSIBLE(handle_freeze)
IMPOSSIBLE(handle_update)
IMPOSSIBLE(handle_stats)
IMPOSSIBLE(handle_top)
IMPOSSIBLE(handle_container_remove)
IMPOSSIBLE(handle_nic_add)
IMPOSSIBLE(handle_nic_remove)
IMPOSSIBLE(handle_file_write)

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (argc < 3 || argc > 4 || strlen(argv[1]) >= sizeof address.sun_path) {
        fputs("usage: agent-test SOCKET ROOT [LISTEN]\n", stderr);
        return 2;
    }
    root = argv[2];
    strcpy(address.sun_path, argv[1]);
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (sock < 0 || bind(sock, (struct sockaddr *)&address, sizeof address) || listen(sock, 256))
        fail(argv[1]);
    if (loop_init() || reap_init() || link_listen(sock))
        fail("loop");
    struct sockets *sockets = argc == 4 ? sockets_new("c") : NULL;
    if (sockets && sockets_listen(sockets, argv[3], "/m0"))
        fail(argv[3]);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    puts(HYPER_READY);
    fflush(stdout);
    loop_run();
}
