/* The event loop: epoll(7) for descriptors, a sorted list for the few timers. See loop.h. */
#include "loop.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

enum { BATCH = 64, FIRST_ROOM = 64, MAX_TIMERS = 16384 };

/* What is watched, by descriptor. The generation tells a descriptor from an earlier one of the same
 * number, of which this batch may still hold an event. */
struct watch {
    loop_fn *fn;
    void *context;
    uint32_t generation;
};

struct timer {
    struct timer *next;
    int64_t due;
    void (*fn)(void *);
    void *context;
    uint32_t number;
};

static int epoll_fd = -1;
static struct watch *watches;
static size_t watch_room;
static uint32_t generation;
static struct timer *timers; /* earliest first */
static uint32_t timer_count, last_timer;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int loop_init(void)
{
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return epoll_fd < 0 ? -errno : 0;
}

/* Descriptors */

static int make_room(int fd)
{
    size_t room = watch_room ? watch_room : FIRST_ROOM;
    while (room <= (size_t)fd)
        room *= 2;
    if (room == watch_room)
        return 0;
    struct watch *grown = reallocarray(watches, room, sizeof *grown);
    if (!grown)
        return -ENOMEM;
    for (size_t i = watch_room; i < room; i++)
        grown[i] = (struct watch){0};
    watches = grown;
    watch_room = room;
    return 0;
}

static struct epoll_event event_of(int fd, uint32_t events)
{
    uint64_t tag = (uint64_t)watches[fd].generation << 32 | (uint32_t)fd;
    return (struct epoll_event){.events = events, .data.u64 = tag};
}

int loop_add(int fd, uint32_t events, loop_fn *fn, void *context)
{
    int error = make_room(fd);
    if (error)
        return error;
    watches[fd] = (struct watch){fn, context, ++generation};
    struct epoll_event event = event_of(fd, events);
    if (!epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
        return 0;
    error = -errno;
    watches[fd].fn = NULL;
    return error;
}

int loop_change(int fd, uint32_t events)
{
    if (fd < 0 || (size_t)fd >= watch_room || !watches[fd].fn)
        return -ENOENT;
    struct epoll_event event = event_of(fd, events);
    return epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) ? -errno : 0;
}

void loop_remove(int fd)
{
    if (fd < 0 || (size_t)fd >= watch_room || !watches[fd].fn)
        return;
    watches[fd].fn = NULL;
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static void dispatch(const struct epoll_event *event)
{
    uint32_t fd = (uint32_t)event->data.u64;
    struct watch watch = watches[fd];
    if (watch.fn && watch.generation == event->data.u64 >> 32)
        watch.fn(watch.context, event->events);
}

/* Timers */

static bool number_in_use(uint32_t number)
{
    for (const struct timer *timer = timers; timer; timer = timer->next)
        if (timer->number == number)
            return true;
    return false;
}

static uint32_t new_number(void)
{
    /* Numbers come again only after 2^32 timers, when the search costs nothing to speak of. */
    static bool wrapped;
    do
        wrapped |= !++last_timer;
    while (!last_timer || (wrapped && number_in_use(last_timer)));
    return last_timer;
}

uint32_t loop_after(unsigned milliseconds, void (*fn)(void *), void *context)
{
    if (timer_count >= MAX_TIMERS)
        return 0;
    struct timer *timer = malloc(sizeof *timer);
    if (!timer)
        return 0;
    timer_count++;
    *timer = (struct timer){NULL, now_ms() + milliseconds, fn, context, new_number()};
    struct timer **at = &timers;
    while (*at && (*at)->due <= timer->due)
        at = &(*at)->next;
    timer->next = *at;
    *at = timer;
    return timer->number;
}

static void take_out(struct timer **at)
{
    struct timer *timer = *at;
    *at = timer->next;
    free(timer);
    timer_count--;
}

void loop_cancel(uint32_t number)
{
    for (struct timer **at = &timers; *at; at = &(*at)->next)
        if ((*at)->number == number) {
            take_out(at);
            return;
        }
}

static void run_timers(void)
{
    if (!timers)
        return;
    int64_t now = now_ms();
    /* What a callback adds is not due before the next round, even with 0 ms. */
    for (uint32_t left = timer_count; left && timers && timers->due <= now; left--) {
        struct timer due = *timers;
        take_out(&timers);
        due.fn(due.context);
    }
}

static int next_timeout(void)
{
    if (!timers)
        return -1;
    int64_t wait = timers->due - now_ms();
    return wait < 0 ? 0 : wait > 3600000 ? 3600000 : (int)wait;
}

_Noreturn void loop_run(void)
{
    struct epoll_event events[BATCH];
    for (;;) {
        int count = epoll_wait(epoll_fd, events, BATCH, next_timeout());
        for (int i = 0; i < count; i++)
            dispatch(&events[i]);
        run_timers();
    }
}
