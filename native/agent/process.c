/* The table of processes: streams, end, EXIT, until RELEASE (docs/agent-protocol.md, "Processes"). */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "container.h"
#include "link.h"
#include "processes.h"
#include "reap.h"
#include "request.h"
#include "stream.h"

enum { MAX_PROCESSES = 4096, PTMX_MAJOR = 5, PTMX_MINOR = 2 };

static struct process *processes;
static unsigned process_count;

struct process *process_first(void)
{
    return processes;
}

struct process *process_find(uint32_t handle)
{
    struct process *process = processes;
    while (process && process->names.handle != handle)
        process = process->next;
    return process;
}

struct process *process_init_of(const char *container)
{
    struct process *process = processes;
    while (process && !(process->names.init && process->pid &&
                        !strcmp(process->names.container, container)))
        process = process->next;
    return process;
}

pid_t process_pid(const struct process *process)
{
    return process->pid;
}

int64_t wall_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Making */

static bool make_streams(struct process *process)
{
    struct process_names *names = &process->names;
    if (names->tty)
        names->stderr_id = 0;
    /* A terminal is always read: else its programs would block. */
    if (names->stdout_id || names->tty)
        process->output[0] = output_new(names->stdout_id, false);
    if (names->stderr_id && (process->output[0] || !names->stdout_id))
        process->output[1] = output_new(names->stderr_id, false);
    if (names->stdin_id)
        process->input = input_new(names->stdin_id, false);
    return (!names->stdout_id || process->output[0]) && (!names->tty || process->output[0]) &&
           (!names->stderr_id || process->output[1]) && (!names->stdin_id || process->input);
}

struct process *process_new(const struct process_names *names)
{
    if (!names->handle || process_find(names->handle)) {
        errno = EEXIST;
        return NULL;
    }
    if (process_count >= MAX_PROCESSES) {
        errno = EMFILE;
        return NULL;
    }
    struct process *process = calloc(1, sizeof *process);
    if (!process)
        return NULL;
    process->names = *names;
    for (int i = 0; i < 3; i++)
        process->child[i] = -1;
    process->next = processes;
    processes = process;
    process_count++;
    if (make_streams(process))
        return process;
    int error = errno;
    process_discard(process);
    errno = error;
    return NULL;
}

static void close_child_ends(struct process *process)
{
    for (int i = 0; i < 3; i++) {
        if (process->child[i] >= 0)
            close(process->child[i]);
        process->child[i] = -1;
    }
}

void process_discard(struct process *process)
{
    struct process **at = &processes;
    while (*at != process)
        at = &(*at)->next;
    *at = process->next;
    process_count--;
    if (process->pid && process->running)
        reap_forget(process->pid);
    close_child_ends(process);
    for (int i = 0; i < 2; i++)
        if (process->output[i])
            output_free(process->output[i]);
    if (process->input)
        input_free(process->input);
    free(process);
}

/* Opens one of the child's descriptors and the agent's end of it. */
static int open_end(struct process *process, int number)
{
    struct output *output = number ? process->output[number - 1] : NULL;
    struct input *input = number ? NULL : process->input;
    int ends[2];
    if (!output && !input) {
        process->child[number] = open("/dev/null", (number ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
        return process->child[number] < 0 ? -errno : 0;
    }
    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    process->child[number] = ends[output ? 1 : 0];
    return output ? output_open(output, ends[0]) : input_open(input, ends[1]);
}

int process_pipes(struct process *process, int child[3])
{
    for (int i = 0; i < 3; i++) {
        int error = open_end(process, i);
        if (error)
            return error;
        child[i] = process->child[i];
    }
    return 0;
}

/* The packet comes from a child that runs in the container's reach: it is believed once, and only
 * what can't make the agent wait. */
static bool good_terminal(const struct process *process, int master)
{
    struct stat found;
    return process->names.tty && !process->has_terminal && !fstat(master, &found) &&
           S_ISCHR(found.st_mode) && found.st_rdev == makedev(PTMX_MAJOR, PTMX_MINOR);
}

void process_terminal(struct process *process, int master)
{
    if (!good_terminal(process, master)) {
        close(master);
        return;
    }
    process->has_terminal = true;
    /* Input has a descriptor of its own, since the loop knows each only once. */
    int copy = process->input ? fcntl(master, F_DUPFD_CLOEXEC, 0) : -1;
    fcntl(master, F_SETFD, FD_CLOEXEC);
    output_open(process->output[0], master);
    if (copy >= 0)
        input_open(process->input, copy);
}

/* Ending */

static void send_exit(void *context)
{
    struct process *process = context;
    struct writer message = {0};
    if (process->names.init) {
        const struct container *container = container_find(process->names.container);
        process->oom = container && container_oom(container);
    }
    process->running = false;
    process_describe(process, &message, 0);
    send_event(EVENT_KIND_EXIT, &message);
    link_flush();
}

static void on_end(void *context, int status, int64_t ended_ns)
{
    struct process *process = context;
    process->dead = true;
    process->finished_ns = ended_ns;
    process->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    process->code = process->signal ? 128 + process->signal : WEXITSTATUS(status);
    if (process->names.tty)
        output_drain(process->output[0]);
    struct container *container =
        process->names.init ? container_find(process->names.container) : NULL;
    if (container)
        container_ended(container, send_exit, process);
    else
        send_exit(process);
}

void process_started(struct process *process, pid_t pid, int64_t started_ns)
{
    close_child_ends(process);
    process->pid = pid;
    process->started_ns = started_ns;
    process->running = true;
    if (process->input)
        input_announce(process->input);
    if (reap_watch(pid, on_end, process)) {
        /* Without memory to remember it, its end would never be known. */
        kill(pid, SIGKILL);
        on_end(process, SIGKILL, wall_clock_ns());
    }
    link_flush();
}

void process_describe(const struct process *process, struct writer *message, uint16_t tag)
{
    const struct process_names *names = &process->names;
    size_t opened = tag ? write_open(message, tag) : 0;
    write_number(message, F_PROCESS_STATE_HANDLE, names->handle);
    write_text(message, F_PROCESS_STATE_CONTAINER, names->container);
    write_number(message, F_PROCESS_STATE_PID, process->pid);
    write_number(message, F_PROCESS_STATE_RUNNING, process->running);
    write_number(message, F_PROCESS_STATE_CODE, process->running ? 0 : process->code);
    write_number(message, F_PROCESS_STATE_SIGNAL, process->running ? 0 : process->signal);
    write_number(message, F_PROCESS_STATE_OOM, process->oom);
    write_number(message, F_PROCESS_STATE_STARTED_NS, process->started_ns);
    write_number(message, F_PROCESS_STATE_FINISHED_NS,
                 process->running ? 0 : process->finished_ns);
    write_number(message, F_PROCESS_STATE_STDIN, names->stdin_id);
    write_number(message, F_PROCESS_STATE_STDOUT, names->stdout_id);
    write_number(message, F_PROCESS_STATE_STDERR, names->stderr_id);
    if (process->input)
        write_number(message, F_PROCESS_STATE_STDIN_TAKEN, (int64_t)process->input->ring.end);
    write_number(message, F_PROCESS_STATE_INIT, names->init);
    if (tag)
        write_close(message, opened);
}

void processes_connected(void)
{
    for (const struct process *process = processes; process; process = process->next)
        if (process->input && process->running)
            input_announce(process->input);
}
