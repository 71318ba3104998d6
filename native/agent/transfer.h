/* Archive operations in forked children: the parent's side (transfer.c), the child's
 * (transfer_child.c) and the requests (transfer_requests.c). */
#ifndef HYPER_TRANSFER_H
#define HYPER_TRANSFER_H

#include <stddef.h>
#include <stdint.h>

#include "request.h"

enum { TRANSFER_LAYERS = 256 };

/* What a child is to do. Descriptors are the caller's, who closes them after transfer_begin. */
struct transfer_job {
    enum hyper_op op;
    int root; /* of the container, or its upper directory */
    int layers[TRANSFER_LAYERS];
    size_t layer_count;
    const char *path; /* or a name, for OP_OWNER */
    bool group;
    unsigned flags; /* enum archive_flags */
    bool diff;
    int64_t since, now; /* of a difference: only what changed after it; when it was asked for. ns */
};

/* Before each payload that the child sends. The first record is the answer (a message, or one line
 * of detail with an errno); the second, of operations that send a tar, says how that ended. */
struct transfer_record {
    uint32_t length;
    int32_t error;
};

/* Starts it and answers the request, now or later. `stream` 0: the operation has none. */
void transfer_begin(struct request request, const struct transfer_job *job, uint32_t stream);
_Noreturn void transfer_child(const struct transfer_job *job, int results, int data);

#endif
