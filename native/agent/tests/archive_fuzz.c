/* Fuzz target of the tar reader: whatever it takes is written again by the writer, and what that
 * writes must be read back the same. With libFuzzer (-DLIBFUZZER), or alone: archive_fuzz RUNS
 * [SEED] mutates small good archives. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "archive_tar.h"

static char detail[ARCHIVE_DETAIL], second_detail[ARCHIVE_DETAIL];

static int input_of(const uint8_t *data, size_t size)
{
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("input", MFD_CLOEXEC);
    if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static bool same(const struct tar_entry *a, const struct tar_entry *b)
{
    return a->type == b->type && a->mode == b->mode && a->uid == b->uid && a->gid == b->gid &&
           a->mtime == b->mtime && a->mtime_ns == b->mtime_ns && !strcmp(a->name, b->name) &&
           !strcmp(a->link, b->link) && a->xattrs.used == b->xattrs.used &&
           !memcmp(a->xattrs.bytes, b->xattrs.bytes, a->xattrs.used);
}

/* Writes an entry without its data, reads it again, compares. */
static void there_and_back(struct tar_entry *entry)
{
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("again", MFD_CLOEXEC);
    if (ftruncate(fd, 0))
        abort();
    lseek(fd, 0, SEEK_SET);
    struct tar_writer *writer = tar_writer_new(fd, second_detail);
    uint64_t size = entry->size;
    entry->size = 0;
    size_t length = strlen(entry->name);
    bool plain = length && entry->name[length - 1] != '/'; /* a final slash makes directories */
    if (!tar_write_entry(writer, entry) && !tar_write_end(writer) && plain) {
        lseek(fd, 0, SEEK_SET);
        struct tar_reader *reader = tar_reader_new(fd, second_detail);
        if (tar_read_entry(reader) != 1 || !same(entry, &reader->entry)) {
            fprintf(stderr, "not the same: %s\n", entry->name);
            abort();
        }
        free(reader);
    }
    entry->size = size;
    free(writer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tar_reader *reader = tar_reader_new(input_of(data, size), detail);
    const uint8_t *part;
    size_t total = 0;
    while (tar_read_entry(reader) > 0) {
        there_and_back(&reader->entry);
        ssize_t got;
        while ((got = tar_read_data(reader, &part)) > 0)
            total += (size_t)got;
        if (total > size)
            abort();
    }
    free(reader);
    return 0;
}

#ifndef LIBFUZZER
enum { LONGEST = 32768 };

/* A good archive with some of everything. */
static size_t seed(uint8_t *out)
{
    int fd = memfd_create("seed", MFD_CLOEXEC);
    struct tar_writer *writer = tar_writer_new(fd, detail);
    struct tar_entry *entry = calloc(1, sizeof *entry);
    static const char kinds[] = "0123456";
    for (size_t i = 0; i < sizeof kinds - 1; i++) {
        entry->type = (enum tar_type)kinds[i];
        entry->mode = 0644;
        entry->uid = i % 2 ? 5000000 : 0;
        entry->mtime = i % 2 ? -7 : 1700000000;
        entry->mtime_ns = i % 3 ? 250000000 : 0;
        entry->size = kinds[i] == '0' ? 600 : 0;
        memset(entry->name, 'n', i % 3 ? 10 : 150);
        entry->name[i % 3 ? 10 : 150] = 0;
        strcpy(entry->link, kinds[i] == '1' || kinds[i] == '2' ? "target" : "");
        entry->xattrs.used = 0;
        if (i % 2)
            tar_xattr_add(&entry->xattrs, "user.x", 6, "value", 5);
        tar_write_entry(writer, entry);
        tar_write_zeros(writer, entry->size);
        tar_pad(writer, entry->size);
    }
    tar_write_end(writer);
    ssize_t length = pread(fd, out, LONGEST, 0);
    close(fd);
    free(writer);
    free(entry);
    return length > 0 ? (size_t)length : 0;
}

static uint64_t state;

static unsigned pick(unsigned below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state % below);
}

/* Gives a block a right checksum, or nearly all mutations would end at it. */
static void mend(uint8_t *block)
{
    unsigned sum = 0;
    char text[8];
    memset(block + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += block[i];
    snprintf(text, sizeof text, "%06o", sum & 0777777);
    memcpy(block + 148, text, 7);
}

static size_t mutate(uint8_t *data, size_t size)
{
    static const char types[] = "0123456xgLKS7";
    static const uint8_t odd[] = {0, 1, ' ', '0', '7', '9', '=', '\n', '/', '.', 0x7f, 0x80, 0xff};
    for (unsigned i = 0, times = 1 + pick(8); i < times; i++) {
        size_t block = pick((unsigned)(size / 512)) * 512u;
        switch (pick(5)) {
        case 0:
            data[block + 156] = (uint8_t)types[pick(sizeof types - 1)];
            break;
        case 1:
            data[block + 124 + pick(12)] = odd[pick(sizeof odd)];
            break;
        case 2:
            data[block + pick(512)] = odd[pick(sizeof odd)];
            break;
        case 3:
            data[block + pick(512)] = (uint8_t)pick(256);
            break;
        default:
            memmove(data + block, data + pick((unsigned)(size / 512)) * 512u, 512);
        }
        if (pick(4))
            mend(data + block);
    }
    return pick(10) ? size : pick((unsigned)size + 1);
}

int main(int argc, char **argv)
{
    static uint8_t good[LONGEST], data[LONGEST];
    long runs = argc > 1 ? atol(argv[1]) : 100000;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 88172645463325252ull;
    size_t size = seed(good);
    LLVMFuzzerTestOneInput(good, size);
    for (long i = 0; i < runs; i++) {
        memcpy(data, good, size);
        LLVMFuzzerTestOneInput(data, mutate(data, size));
    }
    printf("archive_fuzz: %ld archives\n", runs);
    return 0;
}
#endif
