/* The one connection to the daemon: frames in and out, with bounds. A new connection replaces the
 * old. */
#ifndef HYPER_LINK_H
#define HYPER_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct output;

/* Accepts connections from a listening socket (non-blocking, owned). 0 or -errno. */
int link_listen(int listener);
uint32_t link_current(void); /* its number, 0: nobody is connected */
/* Queues a frame: its header and its payload, which is copied. False: it is lost, because nobody is
 * connected or too much waits already (then the connection ends). */
bool link_send(const void *head, size_t head_length, const void *payload, size_t length);
void link_offer(struct output *output);  /* it may have something to send */
void link_forget(struct output *output); /* it has nothing more to send and may be freed */
bool link_busy(void); /* so much waits to be sent that nothing is to be added unasked */
void link_flush(void);                   /* sends what can be sent now */
/* Ends the connection, but from the loop: the caller may be in the middle of something. */
void link_break(void);
/* Ends the connection after all that was queued; returns when the daemon's kernel has it, after
 * `milliseconds` at the latest. */
void link_finish(unsigned milliseconds);

#endif
