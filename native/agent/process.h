/* Processes that the daemon knows by handle: their streams, their end, until RELEASE. */
#ifndef HYPER_PROCESS_H
#define HYPER_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct process;

/* What a process is to be known as; stream ids of 0 are /dev/null. */
struct process_names {
    uint32_t handle, stdin_id, stdout_id, stderr_id;
    char container[65];
    bool init; /* the container's first process */
    bool tty;
};

/* Takes a handle. NULL with errno: EEXIST handle or stream in use, ENOMEM, EMFILE. */
struct process *process_new(const struct process_names *names);
/* Without tty: makes the pipes; the child's ends block. child[i] is what the child takes as
 * descriptor i (close-on-exec in the agent, which closes its copies in process_started and
 * process_discard); /dev/null for id 0. The child calls child_signals (reap.h) before it executes,
 * and child_close_all if it stays this program (a container's init). Returns 0 or -errno. */
int process_pipes(struct process *process, int child[3]);
/* With tty: gives the master that the child made in the container's devpts; owned from now on. */
void process_terminal(struct process *process, int master);
/* The program was executed: EXIT will be reported for this pid, LIST shows it. It may have ended
 * already. */
void process_started(struct process *process, pid_t pid, int64_t started_ns);
/* The start failed: forget it, close everything. */
void process_discard(struct process *process);
/* The first process of a container that runs or whose exit is not yet released; NULL if none. */
struct process *process_init_of(const char *container);
pid_t process_pid(const struct process *process);
/* Wall clock, ns since the epoch. */
int64_t wall_clock_ns(void);
/* On a new connection: says how far each stdin has come. */
void processes_connected(void);

#endif
