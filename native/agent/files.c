/* FILE_WRITE: new content for a private file of a running container, such as /etc/hosts. The file
 * stays the same, since the container has it mounted. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "state.h"

struct file_write {
    char container[ID_MOST + 1], path[PATH_MOST + 1];
    struct field content;
};

static void copy_text(struct reader *payload, const struct field *field, char *text, size_t room)
{
    if (field->length >= room) {
        payload->bad = true;
        return;
    }
    memcpy(text, field->data, field->length);
    text[field->length] = 0;
}

static bool read_message(struct reader *payload, struct file_write *message)
{
    struct field field;
    *message = (struct file_write){0};
    while (reader_next(payload, &field)) {
        if (field.tag == F_FILE_WRITE_CONTAINER)
            copy_text(payload, &field, message->container, sizeof message->container);
        else if (field.tag == F_FILE_WRITE_PATH)
            copy_text(payload, &field, message->path, sizeof message->path);
        else if (field.tag == F_FILE_WRITE_CONTENT)
            message->content = field;
        else
            payload->bad = true;
    }
    payload->bad |= !id_good(message->container);
    return !payload->bad;
}

static int rewrite(const struct container *container, size_t number, const struct field *content)
{
    char path[CONTAINER_PATH];
    snprintf(path, sizeof path, "/c/%s/files/%zu", container->id, number);
    /* O_NONBLOCK: a lease that the container holds on it is no reason to wait (fcntl(2)). */
    int fd = open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return errno;
    ssize_t length = (ssize_t)content->length;
    /* Written before it is cut: a reader in between finds more rather than nothing. */
    int error = length && pwrite(fd, content->data, content->length, 0) != length ? errno : 0;
    if (!error && ftruncate(fd, length))
        error = errno;
    close(fd);
    return error;
}

void handle_file_write(struct request request, struct reader *payload)
{
    static struct file_write message;
    if (!read_message(payload, &message))
        return;
    struct container *container = container_for(request, message.container, true);
    if (!container)
        return;
    for (size_t i = 0; i < container->file_count; i++) {
        if (strcmp(container->files[i], message.path))
            continue;
        int error = rewrite(container, i, &message.content);
        if (error)
            reply_failure(request, error, STAGE_OTHER, "writing %s", message.path);
        else
            reply(request, NULL);
        return;
    }
    reply_failure(request, ENOENT, STAGE_OTHER, "%s is not a private file", message.path);
}
