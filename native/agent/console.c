/* The console: one line for each thing that went wrong, and the way out. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "guest.h"

void console_line(const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length < 0)
        return;
    if (length > (int)sizeof line - 2)
        length = (int)sizeof line - 2;
    line[length++] = '\n';
    /* Not kept open, and never waited for: nobody may be at the other end. */
    int fd = open("/dev/console", O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, line, (size_t)length) < 0)
        errno = 0; /* there is nobody else to tell */
    close(fd);
}

_Noreturn void guest_off(void)
{
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

_Noreturn void guest_fail(const char *what, int error)
{
    console_line("hyper-agent: %s: %s", what, strerror(error));
    sync();
    guest_off();
}
