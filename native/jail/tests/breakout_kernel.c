/* System calls that no guest needs, and terminals. See breakout.c. */
#include "breakout.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sched.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- the kernel --- */

#define CALL(name, ...)                                                                            \
    static long call_##name(void)                                                                  \
    {                                                                                              \
        return syscall(SYS_##name, __VA_ARGS__);                                                   \
    }

CALL(keyctl, 0, -3, 1)
CALL(add_key, "user", "x", "y", 1, -3)
CALL(request_key, "user", "x", NULL, -3)
CALL(perf_event_open, NULL, 0, -1, -1, 0)
CALL(io_uring_setup, 1, NULL)
CALL(userfaultfd, 1)
CALL(kexec_load, 0, 0, NULL, 0)
CALL(kexec_file_load, -1, -1, 0, NULL, 0)
CALL(init_module, NULL, 0, "")
CALL(finit_module, 0, "", 0)
CALL(delete_module, "x", 0)
CALL(swapon, "/tmp/x", 0)
CALL(sethostname, "x", 1)
CALL(setdomainname, "x", 1)
CALL(settimeofday, NULL, NULL)
CALL(clock_settime, 0, NULL)
CALL(syslog, 3, NULL, 0)
CALL(acct, NULL)
CALL(quotactl, 0, NULL, 0, NULL)
CALL(iopl, 3)
CALL(ioperm, 0x80, 1, 1)
CALL(modify_ldt, 0, NULL, 0)
CALL(fanotify_init, 0, 0)
CALL(pidfd_getfd, 0, 0, 0)
CALL(process_madvise, 0, NULL, 0, 0, 0)
CALL(kcmp, 1, 1, 0, 0, 0)
CALL(move_pages, 0, 0, NULL, NULL, NULL, 0)
CALL(migrate_pages, 0, 0, NULL, NULL)
CALL(mbind, NULL, 0, 0, NULL, 0, 0)
CALL(vhangup, 0)
CALL(vmsplice, -1, NULL, 0, 0)
CALL(shmget, 1, 4096, 0600)
CALL(msgget, 1, 0600)
CALL(semget, 1, 1, 0600)
CALL(mq_open, "x", 0, 0, NULL)
CALL(uselib, "/breakout")
CALL(memfd_secret, 0)
CALL(set_mempolicy, 0, NULL, 0)
CALL(pidfd_send_signal, 0, 0, NULL, 0)
CALL(move_mount, -1, "/ro", -1, "/rw", 0)
CALL(fsmount, 0, 0, 0)
CALL(fspick, -1, "/ro", 0)

/* statmount(2) and listmount(2) tell of all mounts; the headers may be older than they. */
static long list_mounts(void)
{
    uint64_t request[4] = {32, ~0ULL, 0, 0}, found[8];
    return syscall(458, request, found, 8, 0);
}

static long load_bpf(void)
{
    union bpf_attr attributes = {0};
    return syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes);
}

static long restart_host(void)
{
    return syscall(SYS_reboot, 0xfee1dead, 672274793, RB_DISABLE_CAD, NULL);
}

static long other_persona(void)
{
    return personality(READ_IMPLIES_EXEC);
}

static long be_urgent(void)
{
    return setpriority(PRIO_PROCESS, 0, -20);
}

static long be_real_time(void)
{
    struct sched_param parameters = {.sched_priority = 1};
    return sched_setscheduler(0, SCHED_FIFO, &parameters);
}

/* A 32-bit call by the old door: another table of numbers. */
static long old_door(void)
{
    long result = 20; /* getpid */
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory");
    return result > 0 ? 0 : refused((int)-result);
}

static long x32_call(void)
{
    return syscall(0x40000000L | SYS_getpid);
}

/* --- terminals --- */

static long request(unsigned long number)
{
    int fd = open("/dev/null", O_RDWR);
    return syscall(SYS_ioctl, fd < 0 ? 0 : fd, number, "x");
}

static long push_input(void)
{
    return request(0x5412); /* TIOCSTI */
}

static long push_input_in_disguise(void)
{
    return request(0x100005412); /* the kernel looks at the lower half alone */
}

static long paste_selection(void)
{
    return request(0x541c); /* TIOCLINUX */
}

static long take_terminal(void)
{
    return request(0x540e); /* TIOCSCTTY */
}

static long stop_file_system(void)
{
    return request(0x8004587d); /* XFS_IOC_GOINGDOWN */
}

const struct attempt kernel_attempts[] = {
    {"keyctl", call_keyctl},
    {"add-key", call_add_key},
    {"request-key", call_request_key},
    {"bpf", load_bpf},
    {"perf-event-open", call_perf_event_open},
    {"io-uring-setup", call_io_uring_setup},
    {"userfaultfd", call_userfaultfd},
    {"kexec-load", call_kexec_load},
    {"kexec-file-load", call_kexec_file_load},
    {"init-module", call_init_module},
    {"finit-module", call_finit_module},
    {"delete-module", call_delete_module},
    {"swapon", call_swapon},
    {"reboot", restart_host},
    {"sethostname", call_sethostname},
    {"setdomainname", call_setdomainname},
    {"settimeofday", call_settimeofday},
    {"clock-settime", call_clock_settime},
    {"syslog", call_syslog},
    {"acct", call_acct},
    {"quotactl", call_quotactl},
    {"iopl", call_iopl},
    {"ioperm", call_ioperm},
    {"modify-ldt", call_modify_ldt},
    {"fanotify-init", call_fanotify_init},
    {"pidfd-getfd", call_pidfd_getfd},
    {"process-madvise", call_process_madvise},
    {"kcmp", call_kcmp},
    {"move-pages", call_move_pages},
    {"migrate-pages", call_migrate_pages},
    {"mbind", call_mbind},
    {"vhangup", call_vhangup},
    {"vmsplice", call_vmsplice},
    {"shmget", call_shmget},
    {"msgget", call_msgget},
    {"semget", call_semget},
    {"mq-open", call_mq_open},
    {"uselib", call_uselib},
    {"memfd-secret", call_memfd_secret},
    {"set-mempolicy", call_set_mempolicy},
    {"pidfd-send-signal", call_pidfd_send_signal},
    {"move-mount", call_move_mount},
    {"fsmount", call_fsmount},
    {"fspick", call_fspick},
    {"list-mounts", list_mounts},
    {"personality", other_persona},
    {"setpriority", be_urgent},
    {"real-time", be_real_time},
    {"int-0x80", old_door},
    {"x32", x32_call},
    {"tiocsti", push_input},
    {"tiocsti-disguised", push_input_in_disguise},
    {"tioclinux", paste_selection},
    {"tiocsctty", take_terminal},
    {"xfs-goingdown", stop_file_system},
    {NULL, NULL},
};
