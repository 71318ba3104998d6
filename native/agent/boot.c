/* The first thing PID 1 does: the file systems of the guest (docs/agent-protocol.md, "Guest
 * layout"). The root is read-only, its folders exist. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"
#include "sockets.h"

enum { FILES = 1 << 20 };

struct mounting {
    const char *source, *target, *type, *data;
    unsigned long flags;
    bool needed;
};

static const struct mounting mountings[] = {
    {"proc", "/proc", "proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, true},
    {"sys", "/sys", "sysfs", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, true},
    {"run", "/run", "tmpfs", "mode=755", MS_NOSUID | MS_NODEV, true},
    {"tmp", "/tmp", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV, true},
    /* /dev/console-like nodes of containers lie in /c, so devices must work there. */
    {"c", "/c", "tmpfs", "mode=700", MS_NOSUID, true},
    {"l", "/l", "tmpfs", "mode=700", MS_NOSUID | MS_NODEV, true},
    /* UML: the jail's folders. No other machine has hostfs. */
    {"none", "/layers", "hostfs", "/layers", MS_RDONLY | MS_NOSUID | MS_NODEV, false},
    {"none", "/disks", "hostfs", "/disks", MS_NOSUID | MS_NODEV, false},
};

static void mount_one(const struct mounting *one)
{
    if (!mount(one->source, one->target, one->type, one->flags, one->data) || errno == EBUSY)
        return;
    int error = errno;
    if (one->needed)
        guest_fail(one->target, error);
    if (error != ENODEV)
        console_line("hyper-agent: mount %s: %s", one->target, strerror(error));
}

/* Descriptors 0 to 2 are /dev/null, whatever the kernel could give. */
static void null_stdio(void)
{
    int fd = open("/dev/null", O_RDWR);
    if (fd < 0)
        guest_fail("/dev/null", errno);
    for (int i = 0; i < 3; i++)
        if (fd != i)
            dup2(fd, i);
    if (fd > 2)
        close(fd);
}

void boot_mounts(void)
{
    struct rlimit files = {FILES, FILES};
    umask(022);
    /* A kernel with CONFIG_DEVTMPFS_MOUNT has done it. */
    if (mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=755") && errno != EBUSY)
        guest_fail("/dev", errno);
    null_stdio();
    for (size_t i = 0; i < sizeof mountings / sizeof mountings[0]; i++)
        mount_one(&mountings[i]);
    if (mkdir(SOCKETS, 0700) && errno != EEXIST)
        guest_fail(SOCKETS, errno);
    /* What containers inherit where nobody sets it; Docker's daemon has the same. */
    if (setrlimit(RLIMIT_NOFILE, &files))
        console_line("hyper-agent: descriptors: %s", strerror(errno));
}
