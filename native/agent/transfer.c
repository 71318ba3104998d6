/* Archive operations: cp, export, diff. Each runs in a forked child, because a hostile archive or a
 * huge tree must neither block PID 1 nor end it. The tar goes through a pipe that is a stream of the
 * connection; what the child finds comes as records over another pipe. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "container.h"
#include "link.h"
#include "loop.h"
#include "reap.h"
#include "request.h"
#include "stream.h"
#include "transfer.h"

enum { MAX_TRANSFERS = 32, MAX_RECORD = HYPER_MAX_MESSAGE, READ = 64 << 10 };

/* One operation under way. Ends when all was answered and its stream is over. */
struct transfer {
    struct request request;
    pid_t pid;
    bool dead;    /* reaped: the pid may be somebody else's */
    int results;  /* the child's records, -1 once it has closed them */
    uint8_t *data; /* of records that are not complete */
    size_t length, room;
    bool answered, refused; /* the first record was the answer, and it was no */
    bool told_end;          /* the second record said how the tar ended */
    int end_error;
    bool source_ended; /* the tar's pipe is at its end */
    struct output *output;
    struct input *input;
};

static unsigned transfer_count;

/* Frees everything; a child that still runs is killed. */
static void transfer_end(struct transfer *transfer)
{
    if (!transfer->answered)
        reply_failure(transfer->request, ECANCELED, STAGE_OTHER, "the operation was given up");
    if (!transfer->dead) {
        reap_forget(transfer->pid);
        kill(transfer->pid, SIGKILL);
    }
    if (transfer->results >= 0) {
        loop_remove(transfer->results);
        close(transfer->results);
    }
    if (transfer->output)
        output_free(transfer->output);
    if (transfer->input)
        input_free(transfer->input);
    free(transfer->data);
    free(transfer);
    transfer_count--;
}

static void on_child_end(void *context, int status, int64_t ended_ns)
{
    (void)status, (void)ended_ns;
    ((struct transfer *)context)->dead = true;
}

/* Streams */

/* The tar is complete when its pipe is at its end and the child has said that nothing failed. */
static void finish_output(struct transfer *transfer)
{
    if (!transfer->source_ended || transfer->results >= 0)
        return;
    int error = transfer->told_end ? transfer->end_error : EIO;
    if (error)
        output_fail(transfer->output, error);
    else
        output_finish(transfer->output);
}

static void on_source_end(void *context)
{
    struct transfer *transfer = context;
    transfer->source_ended = true;
    finish_output(transfer);
}

static void on_output_over(void *context, int error)
{
    (void)error;
    transfer_end(context);
}

static void on_input_over(void *context, int error)
{
    struct transfer *transfer = context;
    if (error && error != EPIPE) {
        transfer_end(transfer);
        return;
    }
    /* All was written, or the child reads no more: it is about to say why. */
    input_free(transfer->input);
    transfer->input = NULL;
}

/* Records */

static void answer(struct transfer *transfer, int error, const uint8_t *payload, size_t length)
{
    transfer->answered = true;
    transfer->refused = error != 0;
    if (error) {
        reply_failure(transfer->request, error, STAGE_OTHER, "%.*s", (int)length,
                      (const char *)payload);
        return;
    }
    struct writer message = {.data = malloc(length + 1), .length = length, .room = length + 1};
    if (message.data)
        memcpy(message.data, payload, length);
    else
        message.failed = true;
    reply(transfer->request, &message);
}

/* Takes complete records off the buffer. False: the child talks nonsense. */
static bool take_records(struct transfer *transfer)
{
    struct transfer_record record;
    while (transfer->length >= sizeof record) {
        memcpy(&record, transfer->data, sizeof record);
        size_t size = sizeof record + record.length;
        if (record.length > MAX_RECORD)
            return false;
        if (transfer->length < size)
            return true;
        if (!transfer->answered) {
            answer(transfer, record.error, transfer->data + sizeof record, record.length);
        } else {
            transfer->told_end = true;
            transfer->end_error = record.error;
        }
        transfer->length -= size;
        memmove(transfer->data, transfer->data + size, transfer->length);
    }
    return true;
}

static void on_results_closed(struct transfer *transfer)
{
    static const char words[] = "the archive helper ended unexpectedly";
    loop_remove(transfer->results);
    close(transfer->results);
    transfer->results = -1;
    if (!transfer->answered)
        answer(transfer, EIO, (const uint8_t *)words, sizeof words - 1);
    if (transfer->output && !transfer->refused)
        finish_output(transfer);
    else
        transfer_end(transfer);
    link_flush();
}

static bool record_room(struct transfer *transfer)
{
    if (transfer->room - transfer->length >= READ)
        return true;
    size_t room = transfer->room ? transfer->room * 2 : READ;
    uint8_t *grown = room <= 4 * (size_t)MAX_RECORD ? realloc(transfer->data, room) : NULL;
    if (!grown)
        return false;
    transfer->data = grown;
    transfer->room = room;
    return true;
}

static void on_results(void *context, uint32_t events)
{
    struct transfer *transfer = context;
    (void)events;
    ssize_t got = record_room(transfer)
                      ? read(transfer->results, transfer->data + transfer->length,
                             transfer->room - transfer->length)
                      : 0;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    transfer->length += got > 0 ? (size_t)got : 0;
    if (got <= 0 || !take_records(transfer))
        on_results_closed(transfer);
}

/* Beginning */

/* Makes the stream and its pipe; returns the child's end, or -errno. */
static int open_stream(struct transfer *transfer, uint32_t id, bool put)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    if (put)
        transfer->input = input_new(id, true);
    else
        transfer->output = output_new(id, true);
    if (!transfer->input && !transfer->output) {
        int error = -errno;
        close(ends[0]);
        close(ends[1]);
        return error;
    }
    int error = put ? input_open(transfer->input, ends[1]) : output_open(transfer->output, ends[0]);
    int child = ends[put ? 0 : 1];
    if (!error)
        return child;
    close(child);
    return error;
}

static void connect_owner(struct transfer *transfer)
{
    if (transfer->output) {
        transfer->output->at_end = on_source_end;
        transfer->output->over = on_output_over;
        transfer->output->context = transfer;
    }
    if (transfer->input) {
        transfer->input->over = on_input_over;
        transfer->input->context = transfer;
        input_announce(transfer->input);
    }
}

/* Forks; returns the pid, or -errno. */
static pid_t fork_child(struct transfer *transfer, const struct transfer_job *job, int data)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    pid_t pid = fork();
    if (!pid)
        transfer_child(job, ends[1], data);
    int error = pid < 0 ? -errno : 0;
    if (pid > 0)
        reap_made(pid);
    close(ends[1]);
    transfer->results = ends[0];
    if (!error && fcntl(ends[0], F_SETFL, O_NONBLOCK))
        error = -errno;
    if (!error)
        error = loop_add(ends[0], EPOLLIN, on_results, transfer);
    if (error && pid > 0)
        kill(pid, SIGKILL);
    return error ? error : pid;
}

static int begin(struct transfer *transfer, const struct transfer_job *job, uint32_t stream)
{
    int data = -1;
    if (stream) {
        data = open_stream(transfer, stream, job->op == OP_ARCHIVE_PUT);
        if (data < 0)
            return data;
    }
    pid_t pid = fork_child(transfer, job, data);
    if (data >= 0)
        close(data);
    if (pid < 0)
        return pid;
    transfer->pid = pid;
    transfer->dead = false;
    if (reap_watch(pid, on_child_end, transfer))
        return -ENOMEM;
    connect_owner(transfer);
    return 0;
}

void transfer_begin(struct request request, const struct transfer_job *job, uint32_t stream)
{
    if (transfer_count >= MAX_TRANSFERS) {
        reply_failure(request, EAGAIN, STAGE_OTHER, "too many archive operations at once");
        return;
    }
    struct transfer *transfer = calloc(1, sizeof *transfer);
    if (!transfer) {
        reply_failure(request, ENOMEM, STAGE_OTHER, "out of memory");
        return;
    }
    *transfer = (struct transfer){.request = request, .results = -1, .dead = true};
    transfer_count++;
    int error = begin(transfer, job, stream);
    if (error) {
        reply_failure(request, -error, STAGE_OTHER, "the archive operation can't be started: %s",
                      strerror(-error));
        transfer->answered = true;
        transfer_end(transfer);
    } else if (request.op == OP_EXPORT) {
        answer(transfer, 0, (const uint8_t *)"", 0);
    }
}
