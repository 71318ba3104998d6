/* hyper-agent: PID 1 of every guest. Sets the guest up, says on the console that it listens, and
 * from then on does what the daemon asks (docs/agent-protocol.md). */
#include <sys/prctl.h>
#include <unistd.h>

#include "container.h"
#include "guest.h"
#include "link.h"
#include "loop.h"
#include "messages.h"
#include "reap.h"

static void check(int result, const char *what)
{
    if (result < 0)
        guest_fail(what, -result);
}

int main(void)
{
    if (getpid() != 1) {
        static const char words[] = "hyper-agent is PID 1 of a guest, nothing else\n";
        return write(2, words, sizeof words - 1) < 0 ? 2 : 1;
    }
    /* Nobody in a container looks into this process, nor into its children before they execute. */
    prctl(PR_SET_DUMPABLE, 0);
    boot_mounts();
    modules_load("boot.list");
    check(loop_init(), "epoll");
    check(reap_init(), "signals");
    check(containers_init(), "containers");
    int listener = private_link();
    check(listener, "the private interface");
    check(link_listen(listener), "listening");
    console_line("%s", HYPER_READY);
    /* Loaded while the daemon connects: what only containers need. */
    modules_load("late.list");
    loop_run();
}
