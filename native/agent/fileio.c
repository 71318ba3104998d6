/* Whole small files. See fileio.h. */
#include "fileio.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ssize_t read_file(int dir, const char *path, char *text, size_t room)
{
    int fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -errno;
    size_t length = 0;
    ssize_t got = 0;
    while (length + 1 < room && (got = read(fd, text + length, room - 1 - length)) > 0)
        length += (size_t)got;
    int error = errno;
    close(fd);
    text[length] = 0;
    return got < 0 ? -error : (ssize_t)length;
}

int write_file(int dir, const char *path, const char *text)
{
    int fd = openat(dir, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);
    return error;
}

int64_t read_number(int dir, const char *path, int64_t missing)
{
    char text[32];
    if (read_file(dir, path, text, sizeof text) <= 0 || !isdigit((unsigned char)*text))
        return missing;
    return strtoll(text, NULL, 10);
}

int64_t value_of(const char *text, const char *key, int64_t missing)
{
    size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, key, length) && line[length] == ' ')
            return strtoll(line + length + 1, NULL, 10);
    }
    return missing;
}
