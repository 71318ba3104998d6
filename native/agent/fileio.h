/* Whole small files: those of /proc, /sys and cgroups. */
#ifndef HYPER_FILEIO_H
#define HYPER_FILEIO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Reads at most room - 1 bytes and ends them with NUL. Returns how many, or -errno. */
ssize_t read_file(int dir, const char *path, char *text, size_t room);
/* Writes text to an existing file in one write(2): 0 or -errno. */
int write_file(int dir, const char *path, const char *text);
/* A number at the beginning of a file; `missing` where there is no file or it says "max". */
int64_t read_number(int dir, const char *path, int64_t missing);
/* The number behind "key " at the beginning of a line; `missing` if there is none. */
int64_t value_of(const char *text, const char *key, int64_t missing);

#endif
