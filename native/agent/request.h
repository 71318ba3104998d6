/* Requests of the daemon and what they are answered with. A handler answers at once or later, but
 * exactly once; a request whose connection is gone by then is answered into the void. */
#ifndef HYPER_REQUEST_H
#define HYPER_REQUEST_H

#include "codec.h"
#include "messages.h"

struct request {
    uint64_t id;       /* the daemon's number */
    uint32_t link;     /* which connection it came over */
    uint16_t op;
};

/* Both take the request by value: keep a copy of it to answer later. */
void reply(struct request request, struct writer *message);    /* frees the message; NULL is Empty */
void reply_failure(struct request request, int error, enum hyper_stage stage, const char *detail, ...)
    __attribute__((format(printf, 4, 5)));
/* Sends an event if a daemon is connected. Frees the message. */
void send_event(enum hyper_event_kind kind, struct writer *message);

/* What dispatches an op: payload is valid during the call only. A handler that finds it malformed or
 * a field unknown leaves payload->bad set and does nothing: the connection is then closed. */
typedef void request_fn(struct request request, struct reader *payload);

/* Runs the handler of an op; false if the payload was malformed. */
bool dispatch_request(struct request request, const uint8_t *payload, size_t length);

/* container side (see container.h) */
request_fn handle_root_mount, handle_container_start, handle_exec, handle_freeze, handle_update,
    handle_stats, handle_top, handle_container_remove, handle_nic_add, handle_nic_remove,
    handle_trim, handle_file_write, handle_dns_answer;
/* core side */
request_fn handle_setup, handle_signal, handle_resize, handle_list, handle_release, handle_poweroff,
    handle_ping, handle_owner, handle_archive_stat, handle_archive_get, handle_archive_put,
    handle_changes, handle_export, handle_socket_answer;

#endif
