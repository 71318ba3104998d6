/* Finding disks: files below a hostfs mount, block devices by path, or by the serial number that the
 * VMM gave them (virtio-blk: /sys/block/X/serial; SCSI: VPD page 0x80, SPC-4 7.8.15). */
#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fileio.h"

enum { WAIT_MS = 5000, STEP_MS = 5, SERIAL_MOST = 256, VPD_HEADER = 4 };

static bool same_serial(const char *text, ssize_t length, const char *serial)
{
    if (length <= 0)
        return false;
    while (length && (text[length - 1] == '\n' || text[length - 1] == ' ' || !text[length - 1]))
        length--;
    return (size_t)length == strlen(serial) && !memcmp(text, serial, (size_t)length);
}

static bool has_serial(int dir, const char *name, const char *serial)
{
    static const char *const files[] = {"serial", "device/serial"};
    char path[NAME_MAX + 32], text[SERIAL_MOST];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", name, files[i]);
        if (same_serial(text, read_file(dir, path, text, sizeof text), serial))
            return true;
    }
    snprintf(path, sizeof path, "%s/device/vpd_pg80", name);
    ssize_t length = read_file(dir, path, text, sizeof text);
    return length > VPD_HEADER && same_serial(text + VPD_HEADER, length - VPD_HEADER, serial);
}

static bool search(const char *serial, char path[PATH_MOST + 1])
{
    DIR *blocks = opendir("/sys/block");
    if (!blocks)
        return false;
    struct dirent *entry;
    bool found = false;
    while (!found && (entry = readdir(blocks)))
        found = *entry->d_name != '.' && has_serial(dirfd(blocks), entry->d_name, serial);
    if (found)
        snprintf(path, PATH_MOST + 1, "/dev/%s", entry->d_name);
    closedir(blocks);
    return found;
}

static bool present(const struct source_spec *source, char path[PATH_MOST + 1])
{
    if (source->kind == SOURCE_KIND_SERIAL && !search(source->path, path))
        return false;
    if (source->kind != SOURCE_KIND_SERIAL)
        snprintf(path, PATH_MOST + 1, "%s", source->path);
    return !access(path, F_OK);
}

int disk_path(const struct source_spec *source, char path[PATH_MOST + 1], struct failure *failure)
{
    if (source->kind != SOURCE_KIND_SERIAL && *source->path != '/')
        return fail(failure, STAGE_ROOT, EINVAL, "disk \"%s\" has no absolute path", source->path);
    int waited = 0;
    while (!present(source, path)) {
        if (source->kind == SOURCE_KIND_FILE || waited >= WAIT_MS)
            return fail(failure, STAGE_ROOT, ENOENT, "disk \"%s\" is not there", source->path);
        nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000}, NULL);
        waited += STEP_MS;
    }
    return 0;
}
