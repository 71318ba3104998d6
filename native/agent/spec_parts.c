/* Reading the parts of a container's message: root, mounts, limits, interfaces, process. */
#include <limits.h>
#include <linux/bpf_common.h>
#include <string.h>

#include "spec_read.h"

enum {
    TEXT_MOST = 128 << 10, /* one argument or variable: MAX_ARG_STRLEN of execve(2) */
    TEXTS_MOST = 128 << 10,
    GROUPS_MOST = 1024,
    RLIMITS_MOST = 32,
    ROUTES_MOST = 256,
    ADDRESSES_MOST = 64,
    ADDRESS_MOST = 64, /* an IPv6 address with its prefix length */
    NAME_MOST = 255,
    DATA_MOST = 4000, /* a page less what the kernel puts before it */
};

static void source_field(struct source_of from, const struct field *field, void *item)
{
    struct source_spec *source = item;
    if (!field)
        source->path = "";
    else if (field->tag == F_SOURCE_KIND)
        source->kind = (int)number_of(from, field, SOURCE_KIND_FILE, SOURCE_KIND_SERIAL);
    else if (field->tag == F_SOURCE_PATH)
        source->path = text_of(from, field, PATH_MOST);
    else
        mark_bad(from);
}

static void whole_source(struct source_of from, const struct field *field,
                         struct source_spec *source)
{
    read_item(from, field, source_field, source);
    if (!source->kind || !*source->path)
        mark_bad(from);
}

void root_field(struct source_of from, const struct field *field, void *item)
{
    struct root_spec *root = item;
    if (!field)
        return;
    if (field->tag == F_ROOT_LAYERS) {
        struct source_spec *grown =
            root->layer_count < LAYERS_MOST
                ? arena_grow(from.arena, root->layers, root->layer_count, sizeof *grown)
                : NULL;
        if (!grown) {
            mark_bad(from);
            return;
        }
        root->layers = grown;
        whole_source(from, field, &grown[root->layer_count++]);
    } else if (field->tag == F_ROOT_DISK) {
        whole_source(from, field, &root->disk);
    } else if (field->tag == F_ROOT_READ_ONLY) {
        root->read_only = field_flag(from.reader, field);
    } else {
        mark_bad(from);
    }
}

void mount_field(struct source_of from, const struct field *field, void *item)
{
    struct mount_spec *mount = item;
    if (!field) {
        mount->target = mount->source = mount->data = "";
        return;
    }
    switch (field->tag) {
    case F_MOUNT_KIND:
        mount->kind = (int)number_of(from, field, MOUNT_KIND_SHARE, MOUNT_KIND_SOCKET);
        break;
    case F_MOUNT_TARGET:
        mount->target = text_of(from, field, PATH_MOST);
        break;
    case F_MOUNT_SOURCE:
        mount->source = text_of(from, field, PATH_MOST);
        break;
    case F_MOUNT_FLAGS:
        mount->flags = (unsigned long)number_of(from, field, 0, UINT32_MAX);
        break;
    case F_MOUNT_DATA:
        mount->data = text_of(from, field, DATA_MOST);
        break;
    case F_MOUNT_CONTENT:
        mount->content = take_bytes(from.reader, field, from.arena);
        mount->content_length = field->length;
        break;
    case F_MOUNT_MODE:
        mount->mode = (mode_t)number_of(from, field, 0, 07777);
        break;
    case F_MOUNT_COPY_UP:
        mount->copy_up = field_flag(from.reader, field);
        break;
    case F_MOUNT_UID:
        mount->uid = (uid_t)number_of(from, field, 0, UINT32_MAX - 1);
        break;
    case F_MOUNT_GID:
        mount->gid = (gid_t)number_of(from, field, 0, UINT32_MAX - 1);
        break;
    default:
        mark_bad(from);
    }
}

void join_field(struct source_of from, const struct field *field, void *item)
{
    struct join_spec *join = item;
    if (!field) {
        join->container = "";
        return;
    }
    if (field->tag == F_JOIN_NAMESPACE)
        join->namespace = (int)number_of(from, field, 0, INT32_MAX);
    else if (field->tag == F_JOIN_CONTAINER)
        join->container = text_of(from, field, ID_MOST);
    else
        mark_bad(from);
}

void limits_field(struct source_of from, const struct field *field, void *item)
{
    struct limits_spec *limits = item;
    int64_t *numbers[] = {
        [F_LIMITS_MEMORY_MAX] = &limits->memory_max,
        [F_LIMITS_MEMORY_LOW] = &limits->memory_low,
        [F_LIMITS_SWAP_MAX] = &limits->swap_max,
        [F_LIMITS_PIDS_MAX] = &limits->pids_max,
        [F_LIMITS_CPU_WEIGHT] = &limits->cpu_weight,
        [F_LIMITS_CPU_QUOTA_US] = &limits->cpu_quota_us,
        [F_LIMITS_CPU_PERIOD_US] = &limits->cpu_period_us,
    };
    if (!field)
        return;
    if (field->tag == F_LIMITS_OOM_GROUP)
        limits->oom_group = field_flag(from.reader, field);
    else if (field->tag == F_LIMITS_CPU_BY_HOST)
        limits->cpu_by_host = field_flag(from.reader, field);
    else if (field->tag && field->tag < sizeof numbers / sizeof *numbers)
        *numbers[field->tag] = number_of(from, field, -1, INT64_MAX);
    else
        mark_bad(from);
}

void sysctl_field(struct source_of from, const struct field *field, void *item)
{
    struct sysctl_spec *sysctl = item;
    if (!field) {
        sysctl->name = sysctl->value = "";
        return;
    }
    if (field->tag == F_SYSCTL_NAME)
        sysctl->name = text_of(from, field, NAME_MOST);
    else if (field->tag == F_SYSCTL_VALUE)
        sysctl->value = text_of(from, field, DATA_MOST);
    else
        mark_bad(from);
}

void device_field(struct source_of from, const struct field *field, void *item)
{
    struct device_spec *device = item;
    if (!field) {
        device->path = "";
        return;
    }
    switch (field->tag) {
    case F_DEVICE_PATH:
        device->path = text_of(from, field, PATH_MOST);
        break;
    case F_DEVICE_TYPE:
        device->type = (char)number_of(from, field, 'b', 'c');
        break;
    case F_DEVICE_MAJOR:
        device->major = (unsigned)number_of(from, field, 0, 0xfff);
        break;
    case F_DEVICE_MINOR:
        device->minor = (unsigned)number_of(from, field, 0, 0xfffff);
        break;
    case F_DEVICE_MODE:
        device->mode = (mode_t)number_of(from, field, 0, UINT32_MAX) & 07777;
        break;
    case F_DEVICE_UID:
        device->uid = (uid_t)number_of(from, field, 0, INT32_MAX);
        break;
    case F_DEVICE_GID:
        device->gid = (gid_t)number_of(from, field, 0, INT32_MAX);
        break;
    default:
        mark_bad(from);
    }
}

static void route_field(struct source_of from, const struct field *field, void *item)
{
    struct route_spec *route = item;
    if (!field) {
        route->destination = route->gateway = "";
        return;
    }
    if (field->tag == F_ROUTE_DESTINATION)
        route->destination = text_of(from, field, ADDRESS_MOST);
    else if (field->tag == F_ROUTE_GATEWAY)
        route->gateway = text_of(from, field, ADDRESS_MOST);
    else
        mark_bad(from);
}

void nic_field(struct source_of from, const struct field *field, void *item)
{
    struct nic_spec *nic = item;
    if (!field) {
        nic->mac = nic->name = nic->gateway4 = nic->gateway6 = "";
        return;
    }
    switch (field->tag) {
    case F_NIC_MAC:
        nic->mac = text_of(from, field, 17);
        break;
    case F_NIC_NAME:
        nic->name = text_of(from, field, 15);
        break;
    case F_NIC_MTU:
        nic->mtu = (unsigned)number_of(from, field, 0, 65535);
        break;
    case F_NIC_ADDRESSES:
        add_text(from, field, &nic->addresses, ADDRESSES_MOST, ADDRESS_MOST);
        break;
    case F_NIC_GATEWAY4:
        nic->gateway4 = text_of(from, field, ADDRESS_MOST);
        break;
    case F_NIC_GATEWAY6:
        nic->gateway6 = text_of(from, field, ADDRESS_MOST);
        break;
    case F_NIC_ROUTES:
        nic->routes = add_item(from, field, nic->routes, &nic->route_count, sizeof *nic->routes,
                               ROUTES_MOST, route_field);
        break;
    default:
        mark_bad(from);
    }
}

static void rlimit_field(struct source_of from, const struct field *field, void *item)
{
    struct rlimit_spec *rlimit = item;
    if (!field)
        return;
    if (field->tag == F_RLIMIT_RESOURCE)
        rlimit->resource = (int)number_of(from, field, 0, 64);
    else if (field->tag == F_RLIMIT_SOFT)
        rlimit->soft = number_of(from, field, -1, INT64_MAX);
    else if (field->tag == F_RLIMIT_HARD)
        rlimit->hard = number_of(from, field, -1, INT64_MAX);
    else
        mark_bad(from);
}

void process_defaults(struct process_spec *process)
{
    *process = (struct process_spec){.cwd = "", .user = ""};
}

static void seccomp_field(struct source_of from, const struct field *field,
                          struct process_spec *process)
{
    size_t size = sizeof *process->seccomp;
    if (field->length % size || field->length / size > BPF_MAXINSNS) {
        mark_bad(from);
        return;
    }
    process->seccomp = (const void *)take_bytes(from.reader, field, from.arena);
    process->seccomp_count = field->length / size;
}

static void process_list(struct source_of from, const struct field *field,
                         struct process_spec *process)
{
    switch (field->tag) {
    case F_PROCESS_ARGV:
        add_text(from, field, &process->argv, TEXTS_MOST, TEXT_MOST);
        break;
    case F_PROCESS_ENV:
        add_text(from, field, &process->env, TEXTS_MOST, TEXT_MOST);
        break;
    case F_PROCESS_GROUPS:
        add_text(from, field, &process->groups, GROUPS_MOST, NAME_MOST);
        break;
    case F_PROCESS_SECCOMP:
        seccomp_field(from, field, process);
        break;
    case F_PROCESS_RLIMITS:
        process->rlimits = add_item(from, field, process->rlimits, &process->rlimit_count,
                                    sizeof *process->rlimits, RLIMITS_MOST, rlimit_field);
        break;
    default:
        mark_bad(from);
    }
}

/* The identity: user, capabilities and the like. */
static void process_identity(struct source_of from, const struct field *field,
                             struct process_spec *process)
{
    uint64_t *masks[] = {&process->bounding, &process->effective, &process->permitted,
                         &process->inheritable, &process->ambient};
    switch (field->tag) {
    case F_PROCESS_USER:
        process->user = text_of(from, field, NAME_MOST);
        break;
    case F_PROCESS_CAP_BOUNDING:
    case F_PROCESS_CAP_EFFECTIVE:
    case F_PROCESS_CAP_PERMITTED:
    case F_PROCESS_CAP_INHERITABLE:
    case F_PROCESS_CAP_AMBIENT:
        *masks[field->tag - F_PROCESS_CAP_BOUNDING] = (uint64_t)field_number(from.reader, field);
        break;
    case F_PROCESS_NO_NEW_PRIVS:
        process->no_new_privs = field_flag(from.reader, field);
        break;
    case F_PROCESS_UMASK:
        process->umask = (int)number_of(from, field, 0, 01000);
        break;
    case F_PROCESS_OOM_SCORE_ADJ:
        process->oom_score_adj = (int)number_of(from, field, -1000, 1000);
        break;
    default:
        process_list(from, field, process);
    }
}

void process_field(struct source_of from, const struct field *field, void *item)
{
    struct process_spec *process = item;
    if (!field)
        return;
    switch (field->tag) {
    case F_PROCESS_HANDLE:
        process->handle = (uint32_t)number_of(from, field, 0, UINT32_MAX);
        break;
    case F_PROCESS_CWD:
        process->cwd = text_of(from, field, PATH_MOST);
        break;
    case F_PROCESS_TTY:
        process->tty = field_flag(from.reader, field);
        break;
    case F_PROCESS_ROWS:
        process->rows = (unsigned short)number_of(from, field, 0, USHRT_MAX);
        break;
    case F_PROCESS_COLUMNS:
        process->columns = (unsigned short)number_of(from, field, 0, USHRT_MAX);
        break;
    case F_PROCESS_STDIN:
        process->stdin_id = (uint32_t)number_of(from, field, 0, UINT32_MAX);
        break;
    case F_PROCESS_STDOUT:
        process->stdout_id = (uint32_t)number_of(from, field, 0, UINT32_MAX);
        break;
    case F_PROCESS_STDERR:
        process->stderr_id = (uint32_t)number_of(from, field, 0, UINT32_MAX);
        break;
    default:
        process_identity(from, field, process);
    }
}
