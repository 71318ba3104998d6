/* How overlay says in a layer what is gone (Documentation/filesystems/overlayfs.rst, "whiteouts and
 * opaque directories"). */
#ifndef HYPER_ARCHIVE_OVERLAY_H
#define HYPER_ARCHIVE_OVERLAY_H

#include "archive_file.h"

bool overlay_is_whiteout(const struct statx *st);
bool overlay_is_opaque(int dirfd, const char *name); /* of a directory */

#endif
