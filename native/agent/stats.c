/* STATS: counters of a container's cgroup and of its interfaces. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fileio.h"
#include "state.h"

enum { TEXT_ROOM = 16 << 10, NICS_COUNTED = 64, COUNTERS = 16 };

static void write_numbers(struct writer *answer, int dir)
{
    static const struct {
        uint16_t tag;
        const char *file;
    } numbers[] = {
        {F_STATS_MEMORY_CURRENT, "memory.current"},
        {F_STATS_MEMORY_MAX, "memory.max"},
        {F_STATS_PIDS_CURRENT, "pids.current"},
        {F_STATS_PIDS_MAX, "pids.max"},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        write_number(answer, numbers[i].tag, read_number(dir, numbers[i].file, 0));
}

static void write_cpu(struct writer *answer, int dir, char *text)
{
    static const struct {
        uint16_t tag;
        const char *key;
    } values[] = {
        {F_STATS_CPU_USAGE_US, "usage_usec"},
        {F_STATS_CPU_USER_US, "user_usec"},
        {F_STATS_CPU_SYSTEM_US, "system_usec"},
        {F_STATS_CPU_PERIODS, "nr_periods"},
        {F_STATS_CPU_THROTTLED_PERIODS, "nr_throttled"},
        {F_STATS_CPU_THROTTLED_US, "throttled_usec"},
    };
    if (read_file(dir, "cpu.stat", text, TEXT_ROOM) <= 0)
        return;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        write_number(answer, values[i].tag, value_of(text, values[i].key, 0));
}

/* io.stat has one line per device: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0". */
static int64_t sum_of(const char *text, const char *key)
{
    int64_t sum = 0;
    for (const char *at = text; (at = strstr(at, key)); at += strlen(key))
        if (at > text && at[-1] == ' ')
            sum += strtoll(at + strlen(key), NULL, 10);
    return sum;
}

static void write_io(struct writer *answer, int dir, char *text)
{
    if (read_file(dir, "io.stat", text, TEXT_ROOM) <= 0)
        return;
    write_number(answer, F_STATS_READ_BYTES, sum_of(text, "rbytes="));
    write_number(answer, F_STATS_WRITE_BYTES, sum_of(text, "wbytes="));
    write_number(answer, F_STATS_READ_OPS, sum_of(text, "rios="));
    write_number(answer, F_STATS_WRITE_OPS, sum_of(text, "wios="));
}

/* One line of /proc/PID/net/dev: name, colon, eight counters received and eight sent. */
static void write_nic(struct writer *answer, char *line)
{
    static const uint16_t tags[COUNTERS] = {
        [0] = F_NIC_STATS_RX_BYTES,  [1] = F_NIC_STATS_RX_PACKETS, [2] = F_NIC_STATS_RX_ERRORS,
        [3] = F_NIC_STATS_RX_DROPPED, [8] = F_NIC_STATS_TX_BYTES,  [9] = F_NIC_STATS_TX_PACKETS,
        [10] = F_NIC_STATS_TX_ERRORS, [11] = F_NIC_STATS_TX_DROPPED,
    };
    char *colon = strchr(line, ':');
    if (!colon)
        return;
    *colon = 0;
    line += strspn(line, " ");
    if (!strcmp(line, "lo"))
        return;
    size_t opened = write_open(answer, F_STATS_NICS);
    write_text(answer, F_NIC_STATS_NAME, line);
    char *at = colon + 1;
    for (int i = 0; i < COUNTERS; i++) {
        int64_t value = strtoll(at, &at, 10);
        if (tags[i])
            write_number(answer, tags[i], value);
    }
    write_close(answer, opened);
}

static void write_nics(struct writer *answer, pid_t pid, char *text)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/net/dev", pid);
    if (read_file(AT_FDCWD, path, text, TEXT_ROOM) <= 0)
        return;
    char *line = text;
    for (int i = 0; line && i < NICS_COUNTED; i++) {
        char *end = strchr(line, '\n');
        if (end)
            *end++ = 0;
        if (i >= 2) /* after the headings */
            write_nic(answer, line);
        line = end;
    }
}

void handle_stats(struct request request, struct reader *payload)
{
    static char text[TEXT_ROOM];
    char id[ID_MOST + 1];
    if (!read_ref(payload, id))
        return;
    const struct container *container = container_for(request, id, true);
    if (!container)
        return;
    struct writer answer = {0};
    int dir = container->cgroup.dir;
    write_numbers(&answer, dir);
    if (read_file(dir, "memory.stat", text, sizeof text) > 0)
        write_text(&answer, F_STATS_MEMORY_STAT, text);
    write_cpu(&answer, dir, text);
    write_io(&answer, dir, text);
    write_nics(&answer, container->pid, text);
    write_number(&answer, F_STATS_OOM_KILLS, cgroup_oom_kills(&container->cgroup));
    reply(request, &answer);
}
