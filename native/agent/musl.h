/* What musl 1.2.3 lacks of the kernel's interface; the Makefile includes it first for that libc. */
#ifndef HYPER_MUSL_H
#define HYPER_MUSL_H

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef STATX_TYPE
#include <linux/stat.h>

static inline int statx(int fd, const char *path, int flags, unsigned mask, struct statx *out)
{
    return (int)syscall(SYS_statx, fd, path, flags, mask, out);
}
#endif

#endif
