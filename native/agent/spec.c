/* Reading whole messages about containers. See spec.h; the parts are in spec_parts.c. */
#include "spec.h"

#include <string.h>

#include "spec_read.h"

enum {
    MOUNTS_MOST = 512,
    JOINS_MOST = 8,
    SYSCTLS_MOST = 256,
    DEVICES_MOST = 256,
    PATHS_MOST = 256,
    NAME_MOST = 255,
};

void mark_bad(struct source_of from)
{
    from.reader->bad = true;
}

char *take_text(struct reader *reader, const struct field *field, struct arena *arena, size_t most)
{
    char *text = field->length <= most ? arena_take(arena, (size_t)field->length + 1) : NULL;
    if (!text || memchr(field->data, 0, field->length)) {
        reader->bad = true;
        return "";
    }
    return memcpy(text, field->data, field->length);
}

const uint8_t *take_bytes(struct reader *reader, const struct field *field, struct arena *arena)
{
    uint8_t *bytes = arena_take(arena, (size_t)field->length + 1);
    if (!bytes) {
        reader->bad = true;
        return (const uint8_t *)"";
    }
    return memcpy(bytes, field->data, field->length);
}

char *text_of(struct source_of from, const struct field *field, size_t most)
{
    return take_text(from.reader, field, from.arena, most);
}

int64_t number_of(struct source_of from, const struct field *field, int64_t least, int64_t most)
{
    int64_t number = field_number(from.reader, field);
    if (number >= least && number <= most)
        return number;
    mark_bad(from);
    return least;
}

void add_text(struct source_of from, const struct field *field, struct texts *texts, size_t most,
              size_t bytes)
{
    /* A NULL always ends it: it holds one more than it counts. */
    size_t held = texts->items ? texts->count + 1 : 0;
    char **items =
        texts->count < most ? arena_grow(from.arena, texts->items, held, sizeof *items) : NULL;
    if (!items) {
        mark_bad(from);
        return;
    }
    items[texts->count++] = text_of(from, field, bytes);
    items[texts->count] = NULL;
    texts->items = items;
}

void read_item(struct source_of from, const struct field *field, item_fn *fn, void *item)
{
    struct reader inner;
    struct field part;
    field_message(from.reader, field, &inner);
    fn(from, NULL, item);
    while (reader_next(&inner, &part))
        fn((struct source_of){&inner, from.arena}, &part, item);
    from.reader->bad |= inner.bad;
}

void *add_item(struct source_of from, const struct field *field, void *items, size_t *count,
               size_t size, size_t most, item_fn *fn)
{
    char *grown = *count < most ? arena_grow(from.arena, items, *count, size) : NULL;
    if (!grown) {
        mark_bad(from);
        return items;
    }
    void *item = grown + *count * size;
    ++*count;
    read_item(from, field, fn, item);
    return grown;
}

bool id_good(const char *id)
{
    size_t length = strlen(id);
    return length && length <= ID_MOST && strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789") == length;
}

static void container_list(struct source_of from, const struct field *field,
                           struct container_spec *spec)
{
    switch (field->tag) {
    case F_CONTAINER_MOUNTS:
        spec->mounts = add_item(from, field, spec->mounts, &spec->mount_count, sizeof *spec->mounts,
                                MOUNTS_MOST, mount_field);
        break;
    case F_CONTAINER_JOINS:
        spec->joins = add_item(from, field, spec->joins, &spec->join_count, sizeof *spec->joins,
                               JOINS_MOST, join_field);
        break;
    case F_CONTAINER_SYSCTLS:
        spec->sysctls = add_item(from, field, spec->sysctls, &spec->sysctl_count,
                                 sizeof *spec->sysctls, SYSCTLS_MOST, sysctl_field);
        break;
    case F_CONTAINER_DEVICES:
        spec->devices = add_item(from, field, spec->devices, &spec->device_count,
                                 sizeof *spec->devices, DEVICES_MOST, device_field);
        break;
    case F_CONTAINER_NICS:
        spec->nics = add_item(from, field, spec->nics, &spec->nic_count, sizeof *spec->nics,
                              NICS_MOST, nic_field);
        break;
    case F_CONTAINER_MASKED_PATHS:
        add_text(from, field, &spec->masked, PATHS_MOST, PATH_MOST);
        break;
    case F_CONTAINER_READONLY_PATHS:
        add_text(from, field, &spec->readonly, PATHS_MOST, PATH_MOST);
        break;
    default:
        mark_bad(from);
    }
}

static void container_field(struct source_of from, const struct field *field, void *item)
{
    struct container_spec *spec = item;
    switch (field->tag) {
    case F_CONTAINER_ID:
        spec->id = text_of(from, field, ID_MOST);
        break;
    case F_CONTAINER_ROOT:
        read_item(from, field, root_field, &spec->root);
        break;
    case F_CONTAINER_HOSTNAME:
        spec->hostname = text_of(from, field, NAME_MOST);
        break;
    case F_CONTAINER_DOMAINNAME:
        spec->domainname = text_of(from, field, NAME_MOST);
        break;
    case F_CONTAINER_NAMESPACES:
        spec->namespaces = (int)number_of(from, field, 0, INT32_MAX);
        break;
    case F_CONTAINER_LIMITS:
        read_item(from, field, limits_field, &spec->limits);
        break;
    case F_CONTAINER_PROCESS:
        read_item(from, field, process_field, &spec->process);
        break;
    case F_CONTAINER_INIT:
        spec->init = field_flag(from.reader, field);
        break;
    case F_CONTAINER_PRIVILEGED:
        spec->privileged = field_flag(from.reader, field);
        break;
    case F_CONTAINER_SHM_SIZE:
        spec->shm_size = number_of(from, field, -1, INT64_MAX);
        break;
    case F_CONTAINER_DNS:
        spec->dns = field_flag(from.reader, field);
        break;
    default:
        container_list(from, field, spec);
    }
}

static void root_mount_field(struct source_of from, const struct field *field, void *item)
{
    struct container_spec *spec = item;
    if (field->tag == F_ROOT_MOUNT_ID)
        spec->id = text_of(from, field, ID_MOST);
    else if (field->tag == F_ROOT_MOUNT_ROOT)
        read_item(from, field, root_field, &spec->root);
    else if (field->tag == F_ROOT_MOUNT_MOUNTS)
        spec->mounts = add_item(from, field, spec->mounts, &spec->mount_count, sizeof *spec->mounts,
                                MOUNTS_MOST, mount_field);
    else
        mark_bad(from);
}

static void exec_field(struct source_of from, const struct field *field, void *item)
{
    struct container_spec *spec = item;
    if (field->tag == F_EXEC_CONTAINER)
        spec->id = text_of(from, field, ID_MOST);
    else if (field->tag == F_EXEC_PROCESS)
        read_item(from, field, process_field, &spec->process);
    else if (field->tag == F_EXEC_PRIVILEGED)
        spec->privileged = field_flag(from.reader, field);
    else
        mark_bad(from);
}

static void update_field(struct source_of from, const struct field *field, void *item)
{
    struct container_spec *spec = item;
    if (field->tag == F_UPDATE_ID)
        spec->id = text_of(from, field, ID_MOST);
    else if (field->tag == F_UPDATE_LIMITS)
        read_item(from, field, limits_field, &spec->limits);
    else
        mark_bad(from);
}

static void nic_change_field(struct source_of from, const struct field *field, void *item)
{
    struct container_spec *spec = item;
    if (field->tag == F_NIC_CHANGE_CONTAINER)
        spec->id = text_of(from, field, ID_MOST);
    else if (field->tag == F_NIC_CHANGE_NIC)
        spec->nics = add_item(from, field, spec->nics, &spec->nic_count, sizeof *spec->nics, 1,
                              nic_field);
    else
        mark_bad(from);
}

static void spec_defaults(struct container_spec *spec)
{
    *spec = (struct container_spec){.id = "", .hostname = "", .domainname = ""};
    spec->root.disk.path = "";
    process_defaults(&spec->process);
}

static bool read_spec(struct reader *payload, struct container_spec *spec, item_fn *fn)
{
    spec_defaults(spec);
    struct field field;
    while (reader_next(payload, &field))
        fn((struct source_of){payload, &spec->arena}, &field, spec);
    if (!payload->bad && id_good(spec->id))
        return true;
    payload->bad = true;
    arena_free(&spec->arena);
    return false;
}

/* What execve(2) and the identity steps take for granted. */
static bool process_whole(const struct process_spec *process)
{
    return process->handle && process->argv.count;
}

static bool with_process(struct reader *payload, struct container_spec *spec, item_fn *fn)
{
    if (!read_spec(payload, spec, fn))
        return false;
    if (process_whole(&spec->process))
        return true;
    payload->bad = true;
    arena_free(&spec->arena);
    return false;
}

bool read_container(struct reader *payload, struct container_spec *spec)
{
    return with_process(payload, spec, container_field);
}

bool read_exec(struct reader *payload, struct container_spec *spec)
{
    return with_process(payload, spec, exec_field);
}

bool read_root_mount(struct reader *payload, struct container_spec *spec)
{
    return read_spec(payload, spec, root_mount_field);
}

bool read_update(struct reader *payload, struct container_spec *spec)
{
    return read_spec(payload, spec, update_field);
}

bool read_nic_change(struct reader *payload, struct container_spec *spec)
{
    if (!read_spec(payload, spec, nic_change_field))
        return false;
    if (spec->nic_count)
        return true;
    payload->bad = true;
    arena_free(&spec->arena);
    return false;
}

bool read_ref(struct reader *payload, char id[ID_MOST + 1])
{
    struct field field;
    *id = 0;
    while (reader_next(payload, &field)) {
        if (field.tag != F_CONTAINER_REF_ID || field.length > ID_MOST) {
            payload->bad = true;
            return false;
        }
        memcpy(id, field.data, field.length);
        id[field.length] = 0;
    }
    payload->bad |= !id_good(id);
    return !payload->bad;
}
