/* Disks and images as the daemon names them (messages.py: Source). */
#ifndef HYPER_DISK_H
#define HYPER_DISK_H

#include "fail.h"
#include "spec.h"

/* The path in the guest that mount(2) takes as the source. Waits for a device that is still being
 * plugged in. 0, or -1 with *failure. */
int disk_path(const struct source_spec *source, char path[PATH_MOST + 1], struct failure *failure);

#endif
