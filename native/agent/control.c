/* Requests about processes: SIGNAL, RESIZE, LIST, RELEASE. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "container.h"
#include "processes.h"
#include "request.h"
#include "stream.h"

/* Finds the process that a request names, or answers that there is none. */
static struct process *named(struct request request, int64_t handle)
{
    struct process *process =
        handle > 0 && handle <= UINT32_MAX ? process_find((uint32_t)handle) : NULL;
    if (process && process->pid)
        return process;
    reply_failure(request, ESRCH, STAGE_OTHER, "no such process");
    return NULL;
}

/* LIST */

static void list_container(void *context, const char *id)
{
    write_text(context, F_STATE_CONTAINERS, id);
}

void handle_list(struct request request, struct reader *payload)
{
    struct field field;
    struct writer message = {0};
    if (reader_next(payload, &field))
        payload->bad = true;
    if (payload->bad)
        return;
    for (struct process *process = process_first(); process; process = process->next)
        if (process->pid)
            process_describe(process, &message, F_STATE_PROCESSES);
    container_each(list_container, &message);
    reply(request, &message);
}

/* RELEASE */

void handle_release(struct request request, struct reader *payload)
{
    struct field field;
    int64_t handle = 0;
    while (reader_next(payload, &field)) {
        if (field.tag == F_PROCESS_REF_HANDLE)
            handle = field_number(payload, &field);
        else
            payload->bad = true;
    }
    struct process *process = payload->bad ? NULL : named(request, handle);
    if (!process)
        return;
    if (process->running) {
        reply_failure(request, EBUSY, STAGE_OTHER, "the process is running");
        return;
    }
    reply(request, NULL);
    process_discard(process);
}

/* SIGNAL */

/* Whether a process is in the container's cgroup or one below it (cgroups(7), /proc/PID/cgroup). */
static bool belongs(const char *pid, const char *container)
{
    char path[64], text[512], prefix[96];
    snprintf(path, sizeof path, "/proc/%.20s/cgroup", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    text[got > 0 ? got : 0] = 0;
    size_t length = (size_t)snprintf(prefix, sizeof prefix, "0::/c/%.64s", container);
    const char *line = strstr(text, "0::");
    return line && !strncmp(line, prefix, length) && strchr("/\n", line[length]);
}

static bool kill_cgroup(const char *container)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/fs/cgroup/c/%.64s/cgroup.kill", container);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, "1", 1) == 1;
    if (fd >= 0)
        close(fd);
    return done;
}

static int signal_all(const char *container, int number)
{
    if (number == SIGKILL && kill_cgroup(container))
        return 0;
    DIR *proc = opendir("/proc");
    if (!proc)
        return -errno;
    for (const struct dirent *entry; (entry = readdir(proc));)
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
            belongs(entry->d_name, container))
            kill((pid_t)strtol(entry->d_name, NULL, 10), number);
    closedir(proc);
    return 0;
}

static int send_signal(const struct process *process, int64_t number, bool all)
{
    if (number < 0 || number >= NSIG)
        return -EINVAL;
    if (!process->running || (process->dead && !all))
        return -ESRCH;
    if (all)
        return signal_all(process->names.container, (int)number);
    return kill(process->pid, (int)number) ? -errno : 0;
}

void handle_signal(struct request request, struct reader *payload)
{
    struct field field;
    int64_t handle = 0, number = 0;
    bool all = false;
    while (reader_next(payload, &field)) {
        if (field.tag == F_SIGNAL_HANDLE)
            handle = field_number(payload, &field);
        else if (field.tag == F_SIGNAL_SIGNAL)
            number = field_number(payload, &field);
        else if (field.tag == F_SIGNAL_ALL)
            all = field_flag(payload, &field);
        else
            payload->bad = true;
    }
    const struct process *process = payload->bad ? NULL : named(request, handle);
    if (!process)
        return;
    int error = send_signal(process, number, all);
    if (error)
        reply_failure(request, -error, STAGE_OTHER,
                      error == -ESRCH ? "process already finished" : "unable to signal process");
    else
        reply(request, NULL);
}

/* RESIZE */

static unsigned short bounded(int64_t cells)
{
    return (unsigned short)(cells < 0 ? 0 : cells > UINT16_MAX ? UINT16_MAX : cells);
}

void handle_resize(struct request request, struct reader *payload)
{
    struct field field;
    int64_t handle = 0, rows = 0, columns = 0;
    while (reader_next(payload, &field)) {
        if (field.tag == F_RESIZE_HANDLE)
            handle = field_number(payload, &field);
        else if (field.tag == F_RESIZE_ROWS)
            rows = field_number(payload, &field);
        else if (field.tag == F_RESIZE_COLUMNS)
            columns = field_number(payload, &field);
        else
            payload->bad = true;
    }
    const struct process *process = payload->bad ? NULL : named(request, handle);
    if (!process)
        return;
    struct winsize size = {.ws_row = bounded(rows), .ws_col = bounded(columns)};
    if (!process->names.tty)
        reply_failure(request, ENOTTY, STAGE_TTY, "the process has no terminal");
    else if (process->output[0]->fd < 0)
        reply_failure(request, ESRCH, STAGE_TTY, "process already finished");
    else if (ioctl(process->output[0]->fd, TIOCSWINSZ, &size))
        reply_failure(request, errno, STAGE_TTY, "the terminal can't be resized");
    else
        reply(request, NULL);
}
