/* Terminals of processes (pts(4), tty_ioctl(4)). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>
#include <unistd.h>

#include "child.h"
#include "launch.h"
#include "sys.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif

enum { DEVPTS_MAGIC = 0x1cd1, PTMX_MAJOR = 5, PTMX_MINOR = 2 };

/* By the time of an exec the container may have put anything at this path. */
static bool is_ptmx(int fd)
{
    struct stat found;
    struct statfs system;
    return !fstat(fd, &found) && S_ISCHR(found.st_mode) &&
           found.st_rdev == makedev(PTMX_MAJOR, PTMX_MINOR) && !fstatfs(fd, &system) &&
           system.f_type == DEVPTS_MAGIC;
}

static int open_master(struct failure *failure)
{
    int master = sys_openat2(AT_FDCWD, "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC,
                             0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    if (master < 0)
        return fail_errno(failure, STAGE_TTY, errno, "open /dev/pts/ptmx");
    int unlocked = 0;
    if (is_ptmx(master) && !ioctl(master, TIOCSPTLCK, &unlocked))
        return master;
    close(master);
    return fail(failure, STAGE_TTY, ENXIO, "/dev/pts/ptmx is not a terminal of the container");
}

static int bind_console(int master, struct failure *failure)
{
    unsigned number;
    char path[32];
    if (ioctl(master, TIOCGPTN, &number))
        return fail_errno(failure, STAGE_TTY, errno, "numbering the terminal");
    snprintf(path, sizeof path, "/dev/pts/%u", number);
    int file = open("/dev/console", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (file >= 0)
        close(file);
    if (mount(path, "/dev/console", NULL, MS_BIND, NULL))
        return fail_errno(failure, STAGE_TTY, errno, "mounting /dev/console");
    return 0;
}

static int take_slave(int master, const struct process_spec *process, struct failure *failure)
{
    int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return fail_errno(failure, STAGE_TTY, errno, "opening the terminal");
    struct winsize size = {.ws_row = process->rows, .ws_col = process->columns};
    bool taken = !ioctl(slave, TIOCSCTTY, 0) && (!size.ws_row || !ioctl(slave, TIOCSWINSZ, &size));
    for (int fd = 0; fd < 3; fd++)
        taken = taken && dup2(slave, fd) >= 0;
    int error = errno;
    close(slave);
    return taken ? 0 : fail_errno(failure, STAGE_TTY, error, "taking the terminal");
}

int terminal_open(const struct process_spec *process, int status, bool console,
                  struct failure *failure)
{
    int master = open_master(failure);
    if (master < 0)
        return -1;
    struct report report = {.kind = REPORT_TERMINAL};
    int result = console ? bind_console(master, failure) : 0;
    if (!result)
        result = take_slave(master, process, failure);
    if (!result && report_send(status, &report, &master, 1))
        result = fail_errno(failure, STAGE_TTY, errno, "passing the terminal");
    close(master);
    return result;
}
