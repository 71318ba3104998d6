/* The agent's one event loop (epoll(7)), in one thread. Callbacks may add and remove descriptors. */
#ifndef HYPER_LOOP_H
#define HYPER_LOOP_H

#include <stdint.h>

typedef void loop_fn(void *context, uint32_t events);

int loop_init(void); /* 0 or -errno */
/* With EPOLLET among the events the callback comes once per change; loop_change with the same
 * events then asks again for what is still to be had. */
int loop_add(int fd, uint32_t events, loop_fn *fn, void *context); /* 0 or -errno */
int loop_change(int fd, uint32_t events);
void loop_remove(int fd); /* does not close it; nothing is called for it any more */
/* Calls fn once after `milliseconds`; the returned number cancels it, 0 means out of memory. */
uint32_t loop_after(unsigned milliseconds, void (*fn)(void *), void *context);
void loop_cancel(uint32_t timer);
_Noreturn void loop_run(void);

#endif
