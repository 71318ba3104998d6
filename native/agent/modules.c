/* Kernel modules: files of /modules, in the order that a list there gives (finit_module(2)). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest.h"

enum { LIST_MOST = 16 << 10 };

static void load(const char *name)
{
    char path[256];
    if (strchr(name, '/') || snprintf(path, sizeof path, "/modules/%s", name) >= (int)sizeof path) {
        console_line("hyper-agent: %s is no name of a module", name);
        return;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
        console_line("hyper-agent: module %s: %s", name, strerror(errno));
    if (fd >= 0)
        close(fd);
}

void modules_load(const char *list)
{
    static char text[LIST_MOST + 1];
    char path[128], *rest = NULL;
    snprintf(path, sizeof path, "/modules/%s", list);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return; /* everything is built into this kernel */
    ssize_t got = read(fd, text, LIST_MOST);
    close(fd);
    text[got > 0 ? got : 0] = 0;
    for (char *name = strtok_r(text, " \r\n", &rest); name; name = strtok_r(NULL, " \r\n", &rest))
        load(name);
}
