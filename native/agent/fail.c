/* Words for failures. See fail.h. */
#include "fail.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { REASON = 100 }; /* bytes of a detail that are kept for it */

const char *error_text(int error)
{
    static char text[96];
    snprintf(text, sizeof text, "%s", strerror(error));
    text[0] = (char)tolower((unsigned char)text[0]);
    return text;
}

static void set(struct failure *failure, enum hyper_stage stage, int error, const char *detail,
                va_list arguments)
{
    failure->stage = stage;
    failure->error = error;
    vsnprintf(failure->detail, sizeof failure->detail, detail, arguments);
}

int fail(struct failure *failure, enum hyper_stage stage, int error, const char *detail, ...)
{
    va_list arguments;
    va_start(arguments, detail);
    set(failure, stage, error, detail, arguments);
    va_end(arguments);
    return -1;
}

int fail_errno(struct failure *failure, enum hyper_stage stage, int error, const char *detail, ...)
{
    va_list arguments;
    va_start(arguments, detail);
    set(failure, stage, error, detail, arguments);
    va_end(arguments);
    /* The reason fits behind any path. */
    size_t length = strlen(failure->detail), most = sizeof failure->detail - REASON;
    if (length > most)
        length = most;
    snprintf(failure->detail + length, sizeof failure->detail - length, ": %s", error_text(error));
    return -1;
}
