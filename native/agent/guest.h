/* The guest as a whole: boot, its private link, modules, the way out. Only in the agent itself: the
 * test program has its own. */
#ifndef HYPER_GUEST_H
#define HYPER_GUEST_H

#include <stdbool.h>

void boot_mounts(void);  /* ends in guest_fail if the guest can't go on */
int private_link(void);  /* sets it up and returns the listening socket, or -errno */
/* Loads the kernel modules that a list in /modules names, in its order. What is missing is a line
 * on the console. */
void modules_load(const char *list);
void console_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A line on the console, then the machine is switched off. */
_Noreturn void guest_fail(const char *what, int error);
/* Switches the machine off. What was written must be on the disks already. */
_Noreturn void guest_off(void);

#endif
