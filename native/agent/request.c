/* Requests on their way to their handlers, answers and events on their way back. See request.h. */
#include "request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "link.h"
#include "wire.h"

static request_fn *const handlers[] = {
    [OP_SETUP] = handle_setup,
    [OP_ROOT_MOUNT] = handle_root_mount,
    [OP_CONTAINER_START] = handle_container_start,
    [OP_EXEC] = handle_exec,
    [OP_SIGNAL] = handle_signal,
    [OP_RESIZE] = handle_resize,
    [OP_FREEZE] = handle_freeze,
    [OP_UPDATE] = handle_update,
    [OP_STATS] = handle_stats,
    [OP_TOP] = handle_top,
    [OP_LIST] = handle_list,
    [OP_RELEASE] = handle_release,
    [OP_CONTAINER_REMOVE] = handle_container_remove,
    [OP_NIC_ADD] = handle_nic_add,
    [OP_NIC_REMOVE] = handle_nic_remove,
    [OP_ARCHIVE_STAT] = handle_archive_stat,
    [OP_ARCHIVE_GET] = handle_archive_get,
    [OP_ARCHIVE_PUT] = handle_archive_put,
    [OP_CHANGES] = handle_changes,
    [OP_EXPORT] = handle_export,
    [OP_POWEROFF] = handle_poweroff,
    [OP_PING] = handle_ping,
    [OP_TRIM] = handle_trim,
    [OP_DNS_ANSWER] = handle_dns_answer,
    [OP_FILE_WRITE] = handle_file_write,
    [OP_SOCKET_ANSWER] = handle_socket_answer,
    [OP_OWNER] = handle_owner,
};

bool dispatch_request(struct request request, const uint8_t *payload, size_t length)
{
    if (request.op >= sizeof handlers / sizeof handlers[0] || !handlers[request.op]) {
        reply_failure(request, ENOSYS, STAGE_OTHER, "unknown operation %u", request.op);
        return true;
    }
    struct reader reader;
    reader_init(&reader, payload, length);
    handlers[request.op](request, &reader);
    return !reader.bad;
}

/* Sends a frame with a message and frees the message. */
static void send_message(uint8_t type, uint16_t code, uint64_t id, struct writer *message)
{
    uint8_t head[HYPER_HEADER];
    size_t length = message ? message->length : 0;
    wire_header(head, type, code, id, length);
    link_send(head, sizeof head, message ? message->data : NULL, length);
    if (message)
        writer_free(message);
}

void reply(struct request request, struct writer *message)
{
    if (message && message->failed) {
        writer_free(message);
        reply_failure(request, E2BIG, STAGE_OTHER, "the answer is too large");
        return;
    }
    if (request.link == link_current()) {
        send_message(FRAME_REPLY, 0, request.id, message);
        link_flush();
    } else if (message) {
        writer_free(message);
    }
}

void reply_failure(struct request request, int error, enum hyper_stage stage, const char *detail, ...)
{
    char text[1024];
    struct writer message = {0};
    va_list arguments;
    if (request.link != link_current())
        return;
    va_start(arguments, detail);
    vsnprintf(text, sizeof text, detail, arguments);
    va_end(arguments);
    write_number(&message, F_FAILURE_STAGE, stage);
    write_text(&message, F_FAILURE_DETAIL, text);
    if (message.failed)
        writer_free(&message); /* without memory the number alone has to do */
    send_message(FRAME_REPLY, error > 0 && error <= UINT16_MAX ? (uint16_t)error : EIO, request.id,
                 &message);
    link_flush();
}

void send_event(enum hyper_event_kind kind, struct writer *message)
{
    static uint64_t counter;
    if (!message->failed && link_current()) {
        send_message(FRAME_EVENT, (uint16_t)kind, ++counter, message);
    } else {
        if (message->failed)
            link_break(); /* without memory: the daemon has to ask what it missed */
        writer_free(message);
    }
    link_flush();
}
