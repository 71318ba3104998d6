/* Requests about the guest as a whole: SETUP, PING, POWEROFF. */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "container.h"
#include "fileio.h"
#include "guest.h"
#include "link.h"
#include "request.h"

#ifndef HYPER_AGENT_VERSION
#error "the Makefile says which version this is"
#endif

enum { ENTROPY_MOST = 4096, HOSTNAME_MOST = 64, TAG_MOST = 36, FLUSH_MS = 500 };

struct setup {
    int64_t clock_ns;
    const uint8_t *entropy;
    size_t entropy_length;
    char *hostname, *share_tag;
};

static void read_setup(struct reader *payload, struct setup *setup)
{
    struct field field;
    while (reader_next(payload, &field)) {
        if (field.tag == F_SETUP_CLOCK_NS) {
            setup->clock_ns = field_number(payload, &field);
        } else if (field.tag == F_SETUP_ENTROPY) {
            setup->entropy = field.data;
            setup->entropy_length = field.length;
            payload->bad |= field.length > ENTROPY_MOST;
        } else if (field.tag == F_SETUP_HOSTNAME && !setup->hostname) {
            setup->hostname = field_text(payload, &field, HOSTNAME_MOST);
        } else if (field.tag == F_SETUP_SHARE_TAG && !setup->share_tag) {
            setup->share_tag = field_text(payload, &field, TAG_MOST);
        } else {
            payload->bad = true;
        }
    }
}

static int set_clock(int64_t ns)
{
    struct timespec time = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    return ns > 0 && clock_settime(CLOCK_REALTIME, &time) ? -errno : 0;
}

/* Mixes the daemon's randomness in and counts it (random(4)): clones of one saved machine part
 * here, and nothing waits for the kernel to find entropy of its own. */
static int add_entropy(const uint8_t *bytes, size_t length)
{
    union {
        struct rand_pool_info info;
        uint8_t space[sizeof(struct rand_pool_info) + ENTROPY_MOST];
    } pool;
    if (!length)
        return 0;
    pool.info.entropy_count = (int)length * 8;
    pool.info.buf_size = (int)length;
    memcpy(pool.space + sizeof pool.info, bytes, length);
    int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = ioctl(fd, RNDADDENTROPY, &pool.info) ? -errno : 0;
    ioctl(fd, RNDRESEEDCRNG); /* use it at once; a kernel that hasn't enough yet says no */
    explicit_bzero(&pool, sizeof pool);
    close(fd);
    return error;
}

static int mount_share(const char *tag)
{
    static bool mounted; /* a later SETUP (after a resume) finds it there */
    if (!tag || !*tag || mounted)
        return 0;
    /* UML looked for the share at its boot, and looks again: it may have come since. */
    write_file(AT_FDCWD, "/sys/bus/platform/drivers/virtio-uml/bind", "virtio-uml.0");
    modules_load("share.list");
    int error = share_mount(tag);
    mounted = !error;
    return error;
}

static void read_line(const char *path, char *into, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, into, room - 1);
    into[got > 0 ? got : 0] = 0;
    into[strcspn(into, "\n")] = 0;
    if (fd >= 0)
        close(fd);
}

static void reply_info(struct request request)
{
    char actions[256];
    struct utsname kernel;
    struct sysinfo system;
    struct writer message = {0};
    uname(&kernel);
    sysinfo(&system);
    read_line("/proc/sys/kernel/seccomp/actions_avail", actions, sizeof actions);
    write_text(&message, F_INFO_AGENT_VERSION, HYPER_AGENT_VERSION);
    write_text(&message, F_INFO_KERNEL_RELEASE, kernel.release);
    write_text(&message, F_INFO_KERNEL_VERSION, kernel.version);
    write_number(&message, F_INFO_MEMORY_TOTAL, (int64_t)(system.totalram * system.mem_unit));
    write_text(&message, F_INFO_SECCOMP_ACTIONS, actions);
    reply(request, &message);
}

static void set_up(struct request request, const struct setup *setup)
{
    const char *what = "the clock can't be set";
    int error = set_clock(setup->clock_ns);
    if (!error) {
        what = "the entropy can't be added";
        error = add_entropy(setup->entropy, setup->entropy_length);
    }
    if (!error && setup->hostname) {
        what = "the hostname can't be set";
        error = sethostname(setup->hostname, strlen(setup->hostname)) ? -errno : 0;
    }
    if (!error) {
        what = "the share can't be mounted";
        error = mount_share(setup->share_tag);
    }
    if (error)
        reply_failure(request, -error, STAGE_OTHER, "%s: %s", what, strerror(-error));
    else
        reply_info(request);
}

void handle_setup(struct request request, struct reader *payload)
{
    struct setup setup = {0};
    read_setup(payload, &setup);
    if (!payload->bad)
        set_up(request, &setup);
    free(setup.hostname);
    free(setup.share_tag);
}

static bool is_empty(struct reader *payload)
{
    struct field field;
    if (reader_next(payload, &field))
        payload->bad = true;
    return !payload->bad;
}

void handle_ping(struct request request, struct reader *payload)
{
    if (is_empty(payload))
        reply(request, NULL);
}

/* The reply means that the disks are clean; then the machine goes. */
void handle_poweroff(struct request request, struct reader *payload)
{
    if (!is_empty(payload))
        return;
    containers_unmount_all();
    sync();
    reply(request, NULL);
    link_finish(FLUSH_MS);
    guest_off();
}
