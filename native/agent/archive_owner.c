/* The number of a user or group by its name, as `COPY --chown` wants it: a bounded reader of
 * passwd(5) and group(5) of a root, which is anybody's. */
#include "archive_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OWNERS_MOST = 4 << 20 }; /* bytes of one file that are read */

/* The file's text, NUL-terminated, or NULL and errno. */
static char *read_owners(int rootfd, const char *path)
{
    struct stat found;
    int fd = archive_open_in(rootfd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    errno = fd < 0 ? -fd : 0;
    char *text = fd < 0 ? NULL : calloc(1, OWNERS_MOST + 1);
    size_t length = 0;
    ssize_t got = 1;
    if (text && !fstat(fd, &found) && S_ISREG(found.st_mode))
        while (length < OWNERS_MOST && got > 0) {
            got = read(fd, text + length, OWNERS_MOST - length);
            length += got > 0 ? (size_t)got : 0;
        }
    if (fd >= 0)
        close(fd);
    return text;
}

/* The third field of a line whose first one is the name; nothing but digits that fit. */
static bool owner_line(char *line, const char *name, uint32_t *id)
{
    char *rest, *end;
    const char *first = strtok_r(line + strspn(line, " \t\r"), ":", &rest);
    const char *password = strsep(&rest, ":"), *number = strsep(&rest, ":\r");
    if (!first || strcmp(first, name) || !password || !number || !*number ||
        strspn(number, "0123456789") != strlen(number) || strlen(number) > 10)
        return false;
    unsigned long value = strtoul(number, &end, 10);
    *id = (uint32_t)value;
    return value < UINT32_MAX;
}

int archive_owner(int rootfd, const char *name, bool group, uint32_t *id,
                  char detail[ARCHIVE_DETAIL])
{
    const char *path = group ? "/etc/group" : "/etc/passwd", *kind = group ? "group" : "user";
    char *text = read_owners(rootfd, path), *rest = text, *line;
    if (!text)
        return archive_fail(detail, errno, "open %s: %s", path, archive_reason(errno));
    bool found = false;
    while (!found && (line = strsep(&rest, "\n")))
        found = owner_line(line, name, id);
    free(text);
    return found ? 0 : archive_fail(detail, ENOENT, "no such %s: %s", kind, name);
}
