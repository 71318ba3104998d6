/* What the files of the process table share. */
#ifndef HYPER_PROCESSES_H
#define HYPER_PROCESSES_H

#include "codec.h"
#include "process.h"

struct process {
    struct process *next;
    struct process_names names;
    struct output *output[2]; /* stdout (or all of a terminal's), stderr */
    struct input *input;
    int child[3];
    pid_t pid;    /* 0: not started */
    bool running; /* as the daemon sees it: until its container is empty */
    bool dead;    /* reaped: the pid may be somebody else's */
    bool has_terminal;
    bool oom;
    int code, signal;
    int64_t started_ns, finished_ns;
};

struct process *process_first(void);
struct process *process_find(uint32_t handle);
/* Writes a ProcessState as the nested field `tag`, or as the message itself if tag is 0. */
void process_describe(const struct process *process, struct writer *message, uint16_t tag);

#endif
