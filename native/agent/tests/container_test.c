/* Parsers of the container side on hostile bytes: messages about containers, passwd and group files.
 * usage: container_test [SECONDS [SEED]], which says its seed and ends with 0 unless something fails. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "fileio.h"
#include "launch.h"
#include "spec.h"

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

/* Messages */

static void random_message(struct writer *writer, unsigned depth)
{
    static const char *const texts[] = {"a", "/x/y", "02:42:0a:09:00:02", "10.0.0.1/8", "name"};
    for (uint32_t left = draw(4); left; left--) {
        uint16_t tag = (uint16_t)(1 + draw(23));
        uint32_t kind = draw(depth < 4 ? 4 : 3);
        if (kind == 0)
            write_number(writer, tag, draw(3) ? draw(70) : (int64_t)state);
        else if (kind == 1)
            write_text(writer, tag, texts[draw(5)]);
        else if (kind == 2)
            write_bytes(writer, tag, &state, draw(9));
        else {
            size_t opened = write_open(writer, tag);
            random_message(writer, depth + 1);
            write_close(writer, opened);
        }
    }
}

typedef bool read_fn(struct reader *payload, struct container_spec *spec);

static void check_texts(const struct texts *texts)
{
    for (size_t i = 0; i < texts->count; i++)
        CHECK(strlen(texts->items[i]) <= 128 << 10);
    CHECK(!texts->count || !texts->items[texts->count]);
}

static void check_spec(const struct container_spec *spec)
{
    CHECK(id_good(spec->id));
    CHECK(strlen(spec->hostname) < 256 && strlen(spec->domainname) < 256);
    CHECK(spec->root.layer_count <= LAYERS_MOST && spec->nic_count <= NICS_MOST);
    for (size_t i = 0; i < spec->root.layer_count; i++)
        CHECK(spec->root.layers[i].kind && *spec->root.layers[i].path);
    for (size_t i = 0; i < spec->mount_count; i++)
        CHECK(spec->mounts[i].target && spec->mounts[i].source && spec->mounts[i].data);
    for (size_t i = 0; i < spec->nic_count; i++)
        CHECK(strlen(spec->nics[i].name) < 16 && strlen(spec->nics[i].mac) < 18);
    check_texts(&spec->process.argv);
    check_texts(&spec->process.env);
    check_texts(&spec->masked);
}

/* The id comes first, so that more messages are read to their end. */
static unsigned read_random(read_fn *fn)
{
    struct writer writer = {0};
    struct reader reader;
    struct container_spec spec;
    write_text(&writer, 1, "id");
    random_message(&writer, 1);
    if (writer.length && !draw(3))
        writer.data[draw((uint32_t)writer.length)] ^= (uint8_t)(1u << draw(8));
    reader_init(&reader, writer.data, writer.length);
    bool read = fn(&reader, &spec);
    CHECK(read == !reader.bad);
    if (read) {
        check_spec(&spec);
        arena_free(&spec.arena);
    }
    writer_free(&writer);
    return read;
}

static void write_process(struct writer *writer, uint16_t tag, unsigned arguments)
{
    size_t opened = write_open(writer, tag);
    write_number(writer, F_PROCESS_HANDLE, 7);
    for (unsigned i = 0; i < arguments; i++)
        write_text(writer, F_PROCESS_ARGV, "argument");
    write_number(writer, F_PROCESS_CAP_BOUNDING, -1);
    write_close(writer, opened);
}

static void whole_messages_are_read(void)
{
    for (unsigned arguments = 0; arguments < 40; arguments++) {
        struct writer writer = {0};
        struct reader reader;
        struct container_spec spec;
        write_text(&writer, F_CONTAINER_ID, "0123abc");
        write_process(&writer, F_CONTAINER_PROCESS, arguments);
        size_t opened = write_open(&writer, F_CONTAINER_MOUNTS);
        write_close(&writer, opened);
        reader_init(&reader, writer.data, writer.length);
        CHECK(read_container(&reader, &spec) == (arguments > 0));
        if (arguments) {
            CHECK(spec.process.argv.count == arguments && spec.mount_count == 1);
            CHECK(!spec.process.argv.items[arguments] && !*spec.mounts[0].target);
            CHECK(spec.process.bounding == UINT64_MAX && !*spec.process.user);
            arena_free(&spec.arena);
        }
        writer_free(&writer);
    }
    CHECK(!id_good("") && !id_good("../x") && !id_good("A") && id_good("0a"));
}

/* Users */

static int folder;

static void put(const char *name, const char *text, size_t length)
{
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && write(fd, text, length) == (ssize_t)length);
    close(fd);
}

static struct user user;
static struct failure failure;

static int find(const char *name)
{
    struct process_spec process = {.user = (char *)(uintptr_t)name};
    return user_find(folder, &process, &user, &failure);
}

static void users_are_found(void)
{
    static const char passwd[] = "# a comment\n\n  root:x:0:0::/root:\nshort\nodd:x:12x:5\n"
                                 "twice:x:5:6::/first\ntwice:x:7:8::/second\nbig:x:4294967296:0::\n";
    static const char group[] = "root:x:0:\nmany:x:10:a,twice,b\nprefix:x:11:twice2\nnone:x:y:twice";
    put("etc/passwd", passwd, sizeof passwd - 1);
    put("etc/group", group, sizeof group - 1);
    CHECK(!find("") && user.uid == 0 && !strcmp(user.home, "/root"));
    CHECK(!find("twice") && user.uid == 5 && user.gid == 6 && !strcmp(user.home, "/first"));
    CHECK(user.gid_count == 3 && user.gids[0] == 6 && user.gids[1] == 10 && user.gids[2] == 0);
    CHECK(!find("7") && user.gid == 8);
    CHECK(!find("99:many") && user.uid == 99 && user.gid == 10 && !strcmp(user.home, "/"));
    CHECK(!find("odd") && user.uid == 0 && user.gid == 5);
    CHECK(find("big") && failure.stage == STAGE_USER);
    CHECK(find("nobody") && find("root:nobody") && find("-5") && find("2147483648"));
}

static void links_stay_beneath(void)
{
    CHECK(!unlinkat(folder, "etc/passwd", 0) && !symlinkat("/etc/other", folder, "etc/passwd"));
    put("etc/other", "inside:x:77:77::/inside:\n", 25);
    CHECK(!find("inside") && user.uid == 77);
    CHECK(!unlinkat(folder, "etc/passwd", 0) &&
          !symlinkat("../../../../../../../etc/passwd", folder, "etc/passwd"));
    CHECK(find("root"));
    CHECK(!unlinkat(folder, "etc/passwd", 0) && !mkfifoat(folder, "etc/passwd", 0666));
    CHECK(find("root") && !find("55") && user.uid == 55);
    CHECK(!unlinkat(folder, "etc/passwd", 0));
}

static void random_users(void)
{
    static const char *const words[] = {"root", ":", ":", ":", "\n", "0", "x", ",", "99", "\r", "#"};
    for (int file = 0; file < 2; file++) {
        char text[512] = "";
        size_t length = 0;
        for (uint32_t left = draw(60); left; left--) {
            const char *word = words[draw(11)];
            memcpy(text + length, word, strlen(word));
            length += strlen(word);
        }
        if (length && !draw(4))
            text[draw((uint32_t)length)] = (char)draw(256);
        put(file ? "etc/group" : "etc/passwd", text, length);
    }
    static const char *const asked[] = {"", "root", "0", "x:0", "99:root", ":", "root:"};
    if (!find(asked[draw(7)]))
        CHECK(user.gid_count && user.gid_count <= GIDS_MOST && *user.home);
    free(user_names_read(folder));
}

/* The rest */

static void values_are_found(void)
{
    const char *text = "oom 1\noom_kill 23\nlow -4";
    CHECK(value_of(text, "oom_kill", 9) == 23 && value_of(text, "oom", 9) == 1);
    CHECK(value_of(text, "low", 9) == -4 && value_of(text, "kill", 9) == 9);
}

static void reports_carry_descriptors(void)
{
    int ends[2], fds[2] = {-1, -1};
    size_t count = 2;
    struct report sent = {.kind = REPORT_DNS, .time_ns = 5}, got;
    CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends));
    CHECK(!report_send(ends[0], &sent, (int[]){0, 1}, 2));
    CHECK(report_receive(ends[1], &got, fds, &count) == sizeof got && count == 2);
    CHECK(got.kind == REPORT_DNS && got.time_ns == 5 && fds[0] > 2 && fds[1] > 2);
    close(fds[0]), close(fds[1]);
    CHECK(!report_send(ends[0], &sent, NULL, 0));
    CHECK(report_receive(ends[1], &got, fds, &count) == sizeof got && count == 0);
    CHECK(report_receive(ends[1], &got, fds, &count) < 0 && errno == EAGAIN);
    close(ends[0]);
    CHECK(report_receive(ends[1], &got, fds, &count) == 0);
    close(ends[1]);
}

int main(int argc, char **argv)
{
    static read_fn *const readers[] = {read_container, read_exec, read_root_mount, read_update,
                                       read_nic_change};
    char path[] = "/tmp/container_test.XXXXXX";
    time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 5);
    state = (argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL) * 0x9e3779b97f4a7c15u) | 1;
    printf("seed %#llx\n", (unsigned long long)state);
    CHECK(mkdtemp(path) && (folder = open(path, O_RDONLY | O_DIRECTORY)) >= 0);
    CHECK(!mkdirat(folder, "etc", 0755));
    whole_messages_are_read();
    users_are_found();
    links_stay_beneath();
    values_are_found();
    reports_carry_descriptors();
    unsigned long runs = 0, good = 0;
    for (; runs % 64 || time(NULL) < end; runs++) {
        for (int i = 0; i < 50; i++)
            good += read_random(readers[draw(5)]);
        random_users();
    }
    CHECK(!unlinkat(folder, "etc/passwd", 0) && !unlinkat(folder, "etc/group", 0));
    CHECK(!unlinkat(folder, "etc/other", 0) && !unlinkat(folder, "etc", AT_REMOVEDIR));
    CHECK(!rmdir(path));
    printf("%lu messages, %lu of them good, %lu users: no failure\n", runs * 50, good, runs);
    return 0;
}
