/* Whiteouts and opaque directories of overlay, see archive_overlay.h. */
#include "archive_overlay.h"

#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

bool overlay_is_whiteout(const struct statx *st)
{
    return S_ISCHR(st->stx_mode) && !st->stx_rdev_major && !st->stx_rdev_minor;
}

bool overlay_is_opaque(int dirfd, const char *name)
{
    char value;
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t length = fgetxattr(fd, "trusted.overlay.opaque", &value, 1);
    close(fd);
    return length == 1 && value == 'y';
}
