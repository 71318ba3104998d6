/* NIC_ADD and NIC_REMOVE: interfaces of running containers. */
#include <errno.h>
#include <sched.h>

#include "helper.h"
#include "net.h"
#include "state.h"

enum { NIC_MS = 20000 };

/* What a helper needs of a container and of the message. */
struct nic_change {
    const struct container *container;
    const struct container_spec *spec;
};

static int enter(const struct container *container, struct failure *failure)
{
    if (!setns(container->pidfd, CLONE_NEWNET))
        return 0;
    return fail_errno(failure, STAGE_NETWORK, errno, "entering the network namespace");
}

static int add_work(void *argument, struct writer *answer, struct failure *failure)
{
    (void)answer;
    const struct nic_change *change = argument;
    int guest = net_open();
    if (guest < 0)
        return fail_errno(failure, STAGE_NETWORK, errno, "opening a netlink socket");
    if (enter(change->container, failure))
        return -1;
    return net_setup(guest, change->spec->nics, 1, false, failure);
}

static int remove_work(void *argument, struct writer *answer, struct failure *failure)
{
    (void)answer;
    const struct nic_change *change = argument;
    if (enter(change->container, failure))
        return -1;
    return net_give_back(change->spec->nics, failure);
}

static void change_nic(struct request request, struct reader *payload, helper_work *work)
{
    struct container_spec spec;
    if (!read_nic_change(payload, &spec))
        return;
    struct container *container = container_for(request, spec.id, true);
    struct nic_change change = {container, &spec};
    if (container)
        helper_reply(request, &(struct helper_task){.work = work,
                                                    .argument = &change,
                                                    .fd = container->pidfd,
                                                    .milliseconds = NIC_MS});
    arena_free(&spec.arena);
}

void handle_nic_add(struct request request, struct reader *payload)
{
    change_nic(request, payload, add_work);
}

void handle_nic_remove(struct request request, struct reader *payload)
{
    change_nic(request, payload, remove_work);
}
