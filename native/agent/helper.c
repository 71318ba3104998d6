/* Helpers: a fork, a pipe, a time limit. See helper.h.
 *
 * The child writes one struct failure (stage and errno 0: it went well) and then the answer. */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop.h"
#include "reap.h"
#include "sys.h"

struct helper {
    int pipe, pidfd;
    uint32_t timer;
    bool late;
    struct failure failure;
    size_t head; /* bytes of it that have come */
    struct writer answer;
    helper_done *done;
    void *context;
};

static bool write_all(int fd, const void *data, size_t length)
{
    const char *at = data;
    while (length) {
        ssize_t put = write(fd, at, length);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        at += put;
        length -= (size_t)put;
    }
    return true;
}

static _Noreturn void child(const struct helper_task *task, int pipe)
{
    struct failure failure = {0};
    struct writer answer = {0};
    int keep[] = {pipe, task->fd};
    child_signals();
    child_close_all(keep, task->fd < 0 ? 1 : 2);
    if (task->work(task->argument, &answer, &failure) && !failure.error)
        failure.error = EIO;
    if (answer.failed && !failure.error)
        fail(&failure, STAGE_OTHER, EMSGSIZE, "the answer is too long");
    bool whole = write_all(pipe, &failure, sizeof failure) &&
                 (failure.error || write_all(pipe, answer.data, answer.length));
    _exit(!whole);
}

static void finish(struct helper *helper)
{
    struct failure *failure = &helper->failure;
    loop_remove(helper->pipe);
    close(helper->pipe);
    close(helper->pidfd);
    loop_cancel(helper->timer);
    if (helper->late)
        fail(failure, STAGE_OTHER, ETIMEDOUT, "the guest took too long");
    else if (helper->head < sizeof *failure)
        fail(failure, STAGE_OTHER, EIO, "a helper of the agent died");
    failure->detail[FAIL_DETAIL - 1] = 0;
    helper->done(helper->context, &helper->answer, failure->error ? failure : NULL);
    free(helper);
}

/* Makes room in the answer as the writer of codec.h does. */
static bool append(struct writer *answer, const uint8_t *data, size_t length)
{
    if (length > HYPER_MAX_MESSAGE - answer->length)
        return false;
    size_t need = answer->length + length, room = answer->room ? answer->room : 1024;
    while (room < need)
        room *= 2;
    uint8_t *grown = room > answer->room ? realloc(answer->data, room) : answer->data;
    if (!grown)
        return false;
    answer->data = grown;
    answer->room = room;
    memcpy(grown + answer->length, data, length);
    answer->length = need;
    return true;
}

static bool take(struct helper *helper, const uint8_t *data, size_t length)
{
    size_t head = sizeof helper->failure - helper->head;
    if (head > length)
        head = length;
    memcpy((char *)&helper->failure + helper->head, data, head);
    helper->head += head;
    return append(&helper->answer, data + head, length - head);
}

static void on_readable(void *context, uint32_t events)
{
    (void)events;
    struct helper *helper = context;
    uint8_t data[16 << 10];
    ssize_t got = read(helper->pipe, data, sizeof data);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got > 0 && take(helper, data, (size_t)got))
        return;
    if (got > 0) {
        helper->head = 0; /* too long, or no memory for it */
        sys_pidfd_kill(helper->pidfd, SIGKILL);
    }
    finish(helper);
}

static void on_late(void *context)
{
    struct helper *helper = context;
    helper->late = true;
    helper->timer = 0;
    sys_pidfd_kill(helper->pidfd, SIGKILL);
    finish(helper);
}

static int watch(struct helper *helper, unsigned milliseconds)
{
    fcntl(helper->pipe, F_SETFL, O_NONBLOCK);
    int error = loop_add(helper->pipe, EPOLLIN, on_readable, helper);
    if (error)
        return error;
    helper->timer = loop_after(milliseconds, on_late, helper);
    if (helper->timer)
        return 0;
    loop_remove(helper->pipe);
    return -ENOMEM;
}

static int start(struct helper *helper, const struct helper_task *task)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    struct sys_clone_args args = {
        .flags = SYS_CLONE_PIDFD, .pidfd = (uintptr_t)&helper->pidfd, .exit_signal = SIGCHLD};
    pid_t pid = sys_clone3(&args);
    if (!pid)
        child(task, ends[1]);
    int error = -errno;
    close(ends[1]);
    helper->pipe = ends[0];
    if (pid > 0)
        return 0;
    close(ends[0]);
    return error;
}

int helper_run(const struct helper_task *task)
{
    struct helper *helper = calloc(1, sizeof *helper);
    if (!helper)
        return -ENOMEM;
    helper->done = task->done;
    helper->context = task->context;
    int error = start(helper, task);
    if (error) {
        free(helper);
        return error;
    }
    error = watch(helper, task->milliseconds);
    if (error) {
        sys_pidfd_kill(helper->pidfd, SIGKILL);
        close(helper->pipe);
        close(helper->pidfd);
        free(helper);
    }
    return error;
}

/* Answers of helpers */

static void pass_on(void *context, struct writer *answer, const struct failure *failure)
{
    struct request *kept = context, request = *kept;
    free(kept);
    if (!failure) {
        reply(request, answer);
        return;
    }
    writer_free(answer);
    reply_failure(request, failure->error, failure->stage, "%s", failure->detail);
}

void helper_reply(struct request request, const struct helper_task *task)
{
    struct helper_task mine = *task;
    struct request *kept = malloc(sizeof *kept);
    int error = -ENOMEM;
    if (kept) {
        *kept = request;
        mine.done = pass_on;
        mine.context = kept;
        error = helper_run(&mine);
    }
    if (!error)
        return;
    free(kept);
    reply_failure(request, -error, STAGE_OTHER, "no helper could be started");
}
