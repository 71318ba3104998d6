/* Why something could not be done: what a Failure says (messages.py). */
#ifndef HYPER_FAIL_H
#define HYPER_FAIL_H

#include "messages.h"

enum { FAIL_DETAIL = 480 };

struct failure {
    enum hyper_stage stage;
    int error; /* errno, 0: none */
    char detail[FAIL_DETAIL];
};

/* Both fill *failure and return -1. fail_errno ends the detail with the error's description. */
int fail(struct failure *failure, enum hyper_stage stage, int error, const char *detail, ...)
    __attribute__((format(printf, 4, 5)));
int fail_errno(struct failure *failure, enum hyper_stage stage, int error, const char *detail, ...)
    __attribute__((format(printf, 4, 5)));
/* The description of an errno as programs written in Go print it: in lower case. */
const char *error_text(int error);

#endif
