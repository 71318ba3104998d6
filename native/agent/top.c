/* TOP: the processes of a container, from its cgroup and /proc (proc(5)). In a helper, since to read
 * a process's command line can hang on what that process has mapped. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "fileio.h"
#include "helper.h"
#include "state.h"

enum {
    TOP_MS = 10000,
    TASKS_MOST = 4096,
    PIDS_ROOM = 64 << 10,
    CMDLINE_MOST = 4096,
    STAT_FIELDS = 24, /* from the third, the state, on */
    PTS_MAJOR = 136,
    PTS_MAJORS = 8,
};

/* Fields of /proc/PID/stat, counted from the state. */
enum {
    PPID = 1,
    PGRP,
    SESSION,
    TTY,
    UTIME = 11,
    STIME,
    PRIORITY = 15,
    NICE,
    THREADS,
    START = 19,
    VSIZE,
    RSS,
};

struct task {
    char comm[64], state[2], cmdline[CMDLINE_MOST], tty[16];
    long long fields[STAT_FIELDS];
    uid_t uid;
    gid_t gid;
};

/* The name stands in parentheses and may hold any byte, parentheses too: the last one counts. */
static bool read_stat(int dir, struct task *task)
{
    char text[1024];
    if (read_file(dir, "stat", text, sizeof text) <= 0)
        return false;
    char *begin = strchr(text, '('), *end = strrchr(text, ')');
    if (!begin || !end || end < begin || end[1] != ' ')
        return false;
    snprintf(task->comm, sizeof task->comm, "%.*s", (int)(end - begin - 1), begin + 1);
    task->state[0] = end[2];
    task->state[1] = 0;
    char *at = end + 3;
    for (int i = 1; i < STAT_FIELDS; i++)
        task->fields[i] = strtoll(at, &at, 10);
    return true;
}

static void read_cmdline(int dir, struct task *task)
{
    ssize_t length = read_file(dir, "cmdline", task->cmdline, sizeof task->cmdline);
    if (length < 0)
        length = 0;
    while (length && !task->cmdline[length - 1])
        length--;
    for (ssize_t i = 0; i < length; i++)
        if (!task->cmdline[i] || task->cmdline[i] == '\n')
            task->cmdline[i] = ' ';
    task->cmdline[length] = 0;
    if (!length)
        snprintf(task->cmdline, sizeof task->cmdline, "[%s]", task->comm);
}

static void name_tty(struct task *task)
{
    unsigned number = (unsigned)task->fields[TTY];
    unsigned major_number = major(number), minor_number = minor(number);
    if (major_number >= PTS_MAJOR && major_number < PTS_MAJOR + PTS_MAJORS)
        snprintf(task->tty, sizeof task->tty, "pts/%u",
                 minor_number + 256 * (major_number - PTS_MAJOR));
    else
        snprintf(task->tty, sizeof task->tty, "?");
}

static bool read_task(pid_t pid, struct task *task)
{
    char path[32];
    struct stat owner;
    snprintf(path, sizeof path, "/proc/%d", pid);
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return false;
    char status[4096];
    bool there = read_stat(dir, task) && read_file(dir, "status", status, sizeof status) > 0 &&
                 !fstat(dir, &owner);
    if (there) {
        const char *uid = strstr(status, "\nUid:"), *gid = strstr(status, "\nGid:");
        char *end;
        /* Of real, effective, saved and file system ids ps shows the effective. */
        task->uid = uid ? (strtoul(uid + 5, &end, 10), (uid_t)strtoul(end, NULL, 10)) : 0;
        task->gid = gid ? (strtoul(gid + 5, &end, 10), (gid_t)strtoul(end, NULL, 10)) : 0;
        read_cmdline(dir, task);
        name_tty(task);
    }
    close(dir);
    return there;
}

static int64_t start_ns(const struct task *task)
{
    struct timespec now, up;
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_BOOTTIME, &up);
    int64_t boot = (now.tv_sec - up.tv_sec) * 1000000000 + (now.tv_nsec - up.tv_nsec);
    return boot + task->fields[START] * (1000000000 / sysconf(_SC_CLK_TCK));
}

static void write_task(struct writer *answer, pid_t pid, const struct task *task,
                       const struct user_names *names)
{
    char user[64];
    user_name(names, task->uid, user, sizeof user);
    const struct {
        uint16_t tag;
        int64_t value;
    } numbers[] = {
        {F_TASK_PID, pid},
        {F_TASK_PPID, task->fields[PPID]},
        {F_TASK_UID, task->uid},
        {F_TASK_GID, task->gid},
        {F_TASK_START_NS, start_ns(task)},
        {F_TASK_UTIME, task->fields[UTIME]},
        {F_TASK_STIME, task->fields[STIME]},
        {F_TASK_VSZ, task->fields[VSIZE] / 1024},
        {F_TASK_RSS, task->fields[RSS] * (sysconf(_SC_PAGESIZE) / 1024)},
        {F_TASK_NICE, task->fields[NICE]},
        {F_TASK_PRIORITY, task->fields[PRIORITY]},
        {F_TASK_THREADS, task->fields[THREADS]},
        {F_TASK_PGID, task->fields[PGRP]},
        {F_TASK_SID, task->fields[SESSION]},
    };
    size_t opened = write_open(answer, F_TOP_TASKS);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        write_number(answer, numbers[i].tag, numbers[i].value);
    write_text(answer, F_TASK_USER, user);
    write_text(answer, F_TASK_COMM, task->comm);
    write_text(answer, F_TASK_CMDLINE, task->cmdline);
    write_text(answer, F_TASK_STATE, task->state);
    write_text(answer, F_TASK_TTY, task->tty);
    write_close(answer, opened);
}

static int top_work(void *argument, struct writer *answer, struct failure *failure)
{
    static struct task task;
    static char pids[PIDS_ROOM];
    char path[CONTAINER_PATH];
    const struct container *container = argument;
    snprintf(path, sizeof path, "/sys/fs/cgroup/c/%s/cgroup.procs", container->id);
    ssize_t length = read_file(AT_FDCWD, path, pids, sizeof pids);
    if (length < 0)
        return fail_errno(failure, STAGE_OTHER, (int)-length, "reading %s", path);
    snprintf(path, sizeof path, "/proc/%d/root", container->pid);
    int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct user_names *names = root < 0 ? NULL : user_names_read(root);
    char *at = pids, *end;
    for (int i = 0; i < TASKS_MOST; i++, at = end) {
        pid_t pid = (pid_t)strtol(at, &end, 10);
        if (end == at)
            break;
        if (pid > 0 && read_task(pid, &task))
            write_task(answer, pid, &task, names);
    }
    return 0;
}

void handle_top(struct request request, struct reader *payload)
{
    char id[ID_MOST + 1];
    if (!read_ref(payload, id))
        return;
    struct container *container = container_for(request, id, true);
    if (container)
        helper_reply(request, &(struct helper_task){.work = top_work,
                                                    .argument = container,
                                                    .fd = -1,
                                                    .milliseconds = TOP_MS});
}
