/* Tests of the archive code that need no other program: paths, what is read, what is refused, and
 * whole trees there and back. Runs as root (owners, devices) in a directory of its own. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "archive_tar.h"

static char detail[ARCHIVE_DETAIL];
static char top[] = "/tmp/archive-test-XXXXXX";
static int failures, checks;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        checks++;                                                                                  \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            fprintf(stderr, "%s:%d: %s failed (%s)\n", __func__, __LINE__, #condition, detail);    \
        }                                                                                          \
    } while (0)

/* A fresh directory below the tests' own. */
static int fresh(const char *name)
{
    int topfd = open(top, O_PATH | O_DIRECTORY);
    archive_remove(topfd, name, detail);
    mkdirat(topfd, name, 0755);
    int fd = openat(topfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(topfd);
    return fd;
}

static void file(int root, const char *name, const char *content)
{
    int fd = openat(root, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && write(fd, content, strlen(content)) == (ssize_t)strlen(content));
    close(fd);
}

static bool holds(int root, const char *name, const char *content)
{
    char found[256];
    int fd = openat(root, name, O_RDONLY | O_NOFOLLOW);
    ssize_t length = fd < 0 ? -1 : read(fd, found, sizeof found);
    if (fd >= 0)
        close(fd);
    return length == (ssize_t)strlen(content) && !memcmp(found, content, strlen(content));
}

static bool missing(int root, const char *name)
{
    return faccessat(root, name, F_OK, AT_SYMLINK_NOFOLLOW) && errno == ENOENT;
}

/* A tar that is made by hand. */
struct made {
    int fd;
    struct tar_writer *writer;
    struct tar_entry entry;
};

static struct made *make(void)
{
    struct made *made = calloc(1, sizeof *made);
    made->fd = memfd_create("tar", MFD_CLOEXEC);
    made->writer = tar_writer_new(made->fd, detail);
    return made;
}

static void add(struct made *made, int type, const char *name, const char *link,
                const char *content)
{
    strcpy(made->entry.name, name);
    strcpy(made->entry.link, link);
    made->entry.type = (enum tar_type)type;
    made->entry.mode = type == TAR_DIRECTORY ? 0755 : 0644;
    made->entry.size = strlen(content);
    CHECK(!tar_write_entry(made->writer, &made->entry));
    CHECK(!tar_write(made->writer, content, strlen(content)));
    CHECK(!tar_pad(made->writer, strlen(content)));
}

static int put_fd(int root, const char *path, int fd, unsigned flags)
{
    lseek(fd, 0, SEEK_SET);
    int error = archive_put(root, path, fd, flags, detail);
    close(fd);
    return error;
}

static int put(struct made *made, int root, const char *path, unsigned flags)
{
    tar_write_end(made->writer);
    int error = put_fd(root, path, made->fd, flags);
    free(made->writer);
    free(made);
    return error;
}

static void paths_are_cleaned_by_their_text(void)
{
    static const char *const cases[][2] = {
        {"", "/"},          {"/", "/"},           {"a", "/a"},
        {"/a//b/", "/a/b"}, {"/a/./b", "/a/b"},   {"../a", "/a"},
        {"/a/../..", "/"},  {"a/b/../c", "/a/c"}, {"/a/b/../../c/.", "/c"},
        {"...", "/..."},    {".a", "/.a"},
    };
    char out[ARCHIVE_PATH], longest[2 * ARCHIVE_PATH];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK(!archive_clean(cases[i][0], out) && !strcmp(out, cases[i][1]));
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    CHECK(archive_clean(longest, out) == -ENAMETOOLONG);
}

static void a_name_that_leads_out_is_known(void)
{
    CHECK(archive_escapes("..") && archive_escapes("../x") && archive_escapes("a/../../x"));
    CHECK(!archive_escapes("a/../x") && !archive_escapes("/../x") && !archive_escapes("..x"));
}

static void links_are_followed_inside_the_root(void)
{
    int root = fresh("follow");
    char out[ARCHIVE_PATH];
    mkdirat(root, "d", 0755);
    symlinkat("../../../etc/passwd", root, "up");
    symlinkat("/d", root, "abs");
    symlinkat("missing/x", root, "d/dangling");
    symlinkat("b", root, "a");
    symlinkat("a", root, "b");
    CHECK(!archive_follow(root, "/up", out) && !strcmp(out, "/etc/passwd"));
    CHECK(!archive_follow(root, "/abs/dangling", out) && !strcmp(out, "/d/missing/x"));
    CHECK(!archive_follow(root, "/abs/../x", out) && !strcmp(out, "/x"));
    CHECK(archive_follow(root, "/a", out) == -ELOOP);
    close(root);
}

static void a_path_leaves_the_root_by_no_link(void)
{
    int outside = fresh("outside"), root = fresh("inside");
    struct archive_stat found;
    file(outside, "secret", "secret");
    symlinkat("../outside", root, "relative");
    char absolute[64];
    snprintf(absolute, sizeof absolute, "%s/outside", top);
    symlinkat(absolute, root, "absolute");
    CHECK(archive_stat(root, "/relative/secret", &found, detail) == -ENOENT);
    CHECK(archive_stat(root, "/absolute/secret", &found, detail) == -ENOENT);
    CHECK(archive_stat(root, "/../outside/secret", &found, detail) == -ENOENT);
    CHECK(archive_get(root, "/relative/", memfd_create("x", 0), detail) == -ENOENT);
    close(outside);
    close(root);
}

static void a_link_in_the_tar_leads_nowhere_but_into_the_root(void)
{
    int outside = fresh("outside"), root = fresh("inside");
    struct made *made = make();
    add(made, TAR_SYMLINK, "out", "../outside", "");
    add(made, TAR_FILE, "out/a", "", "x");
    put(made, root, "/", 0);
    CHECK(missing(outside, "a"));
    made = make();
    add(made, TAR_SYMLINK, "abs", top, "");
    add(made, TAR_FILE, "abs/outside/b", "", "x");
    put(made, root, "/", 0);
    CHECK(missing(outside, "b"));
    made = make();
    add(made, TAR_FILE, "../outside/c", "", "x");
    CHECK(put(made, root, "/", 0) == -EINVAL && strstr(detail, "is outside of"));
    made = make();
    add(made, TAR_FILE, "/../outside/d", "", "x");
    CHECK(!put(made, root, "/", 0) && missing(outside, "d") && holds(root, "outside/d", "x"));
    file(outside, "e", "secret");
    made = make();
    add(made, TAR_HARD_LINK, "e", "../outside/e", "");
    CHECK(put(made, root, "/", 0) == -EINVAL && strstr(detail, "invalid hardlink"));
    made = make();
    add(made, TAR_HARD_LINK, "e", "out/e", "");
    CHECK(put(made, root, "/", 0) < 0 && missing(root, "e"));
    close(outside);
    close(root);
}

static void links_within_the_root_are_followed_like_a_process_would(void)
{
    int root = fresh("inside");
    mkdirat(root, "real", 0755);
    mkdirat(root, "dest", 0755);
    symlinkat("/real", root, "dest/link");
    symlinkat("dest", root, "way");
    struct made *made = make();
    add(made, TAR_FILE, "link/f", "", "x");
    CHECK(!put(made, root, "/way", 0) && holds(root, "real/f", "x"));
    close(root);
}

static void what_exists_is_replaced_but_directories_merge(void)
{
    int root = fresh("inside");
    mkdirat(root, "d", 0700);
    mkdirat(root, "tree", 0755);
    mkdirat(root, "tree/sub", 0755);
    file(root, "tree/sub/f", "old");
    file(root, "d/kept", "kept");
    file(root, "target", "target");
    symlinkat("target", root, "link");
    struct made *made = make();
    add(made, TAR_DIRECTORY, "d/", "", "");
    add(made, TAR_FILE, "tree", "", "now a file");
    add(made, TAR_FILE, "link", "", "new");
    CHECK(!put(made, root, "/", 0));
    CHECK(holds(root, "d/kept", "kept") && holds(root, "tree", "now a file"));
    CHECK(holds(root, "link", "new") && holds(root, "target", "target"));
    close(root);
}

static void no_overwrite_keeps_directories_and_files_apart(void)
{
    int root = fresh("inside");
    mkdirat(root, "d", 0755);
    file(root, "f", "f");
    struct made *made = make();
    add(made, TAR_FILE, "d", "", "x");
    CHECK(put(made, root, "/", ARCHIVE_NO_OVERWRITE_DIR_NON_DIR) == -EEXIST);
    CHECK(!strcmp(detail, "cannot overwrite directory \"/d\" with non-directory \"/\""));
    made = make();
    add(made, TAR_DIRECTORY, "f/", "", "");
    CHECK(put(made, root, "/", ARCHIVE_NO_OVERWRITE_DIR_NON_DIR) == -EEXIST);
    CHECK(!strcmp(detail, "cannot overwrite non-directory \"/f\" with directory \"/\""));
    made = make();
    add(made, TAR_FILE, "f", "", "new");
    CHECK(!put(made, root, "/", ARCHIVE_NO_OVERWRITE_DIR_NON_DIR) && holds(root, "f", "new"));
    close(root);
}

static void a_bad_extraction_point_is_told_in_dockers_words(void)
{
    int root = fresh("inside");
    file(root, "f", "f");
    CHECK(put(make(), root, "/f", 0) == -ENOTDIR);
    CHECK(!strcmp(detail, "extraction point is not a directory"));
    CHECK(put(make(), root, "/none", 0) == -ENOENT);
    close(root);
}

static void owner_mode_time_and_attributes_arrive(void)
{
    int root = fresh("inside");
    struct stat st;
    struct made *made = make();
    made->entry.uid = 3000000;
    made->entry.gid = 7;
    made->entry.mtime = -2;
    made->entry.mtime_ns = 500000000;
    tar_xattr_add(&made->entry.xattrs, "user.a", 6, "v\0\n=", 4);
    tar_xattr_add(&made->entry.xattrs, "trusted.overlay.opaque", 22, "y", 1);
    add(made, TAR_DIRECTORY, "d/", "", "");
    strcpy(made->entry.name, "d/suid");
    made->entry.type = TAR_FILE;
    made->entry.mode = 06755;
    CHECK(!tar_write_entry(made->writer, &made->entry));
    CHECK(!put(made, root, "/", 0));
    CHECK(!fstatat(root, "d/suid", &st, 0) && st.st_mode == (S_IFREG | 06755));
    CHECK(st.st_uid == 3000000 && st.st_gid == 7);
    CHECK(st.st_mtim.tv_sec == -2 && st.st_mtim.tv_nsec == 500000000);
    CHECK(!fstatat(root, "d", &st, 0) && st.st_mtim.tv_sec == -2);
    char value[8];
    int fd = openat(root, "d/suid", O_RDONLY);
    CHECK(fgetxattr(fd, "user.a", value, sizeof value) == 4 && !memcmp(value, "v\0\n=", 4));
    CHECK(fgetxattr(fd, "trusted.overlay.opaque", value, sizeof value) < 0);
    close(fd);
    close(root);
}

/* Copies a path of one root into another through a tar. */
static int copy_over(int from, const char *path, int to)
{
    int fd = memfd_create("tar", MFD_CLOEXEC);
    int error = archive_get(from, path, fd, detail);
    return error ? error : put_fd(to, "/", fd, 0);
}

static void a_tree_comes_back_as_it_was(void)
{
    int from = fresh("from"), to = fresh("to");
    struct stat one, two;
    char name[200];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    mkdirat(from, "t", 0711);
    file(from, "t/f", "content");
    file(from, "t/\xc3\xa4\xff", "raw name");
    linkat(from, "t/f", from, "t/hard", 0);
    symlinkat("../../nowhere", from, "t/link");
    mkfifoat(from, "t/fifo", 0600);
    mknodat(from, "t/null", S_IFCHR | 0666, makedev(1, 3));
    mkdirat(from, "t/long", 0755);
    int fd = openat(from, "t/long", O_PATH);
    symlinkat(name, fd, name);
    close(fd);
    CHECK(!copy_over(from, "/t/", to));
    CHECK(holds(to, "t/f", "content") && holds(to, "t/\xc3\xa4\xff", "raw name"));
    CHECK(!fstatat(to, "t/f", &one, 0) && !fstatat(to, "t/hard", &two, 0));
    CHECK(one.st_ino == two.st_ino && one.st_nlink == 2);
    CHECK(!fstatat(from, "t/f", &two, 0) && one.st_mtim.tv_sec == two.st_mtim.tv_sec);
    CHECK(!one.st_mtim.tv_nsec);
    CHECK(!fstatat(to, "t/null", &one, 0) && S_ISCHR(one.st_mode) && one.st_rdev == makedev(1, 3));
    CHECK(!fstatat(to, "t/fifo", &one, 0) && S_ISFIFO(one.st_mode));
    char target[256], path[256];
    snprintf(path, sizeof path, "t/long/%s", name);
    CHECK(readlinkat(to, path, target, sizeof target) == 199);
    CHECK(!fstatat(to, "t", &one, 0) && one.st_mode == (S_IFDIR | 0711));
    CHECK(!fstatat(from, "t", &two, 0) && one.st_mtim.tv_sec == two.st_mtim.tv_sec);
    close(from);
    close(to);
}

static void a_deep_tree_is_read_and_removed_with_few_descriptors(void)
{
    int from = fresh("from"), at = dup(from), to = fresh("to");
    for (int i = 0; i < 1500; i++) {
        mkdirat(at, "d", 0755);
        int next = openat(at, "d", O_RDONLY | O_DIRECTORY);
        close(at);
        at = next;
    }
    file(at, "f", "deep");
    close(at);
    CHECK(!copy_over(from, "/d", to));
    CHECK(!archive_remove(from, "d", detail) && missing(from, "d"));
    CHECK(!archive_remove(to, "d", detail) && missing(to, "d"));
    close(from);
    close(to);
}

static void a_tree_beyond_the_longest_path_is_an_error_not_a_crash(void)
{
    int from = fresh("from"), at = dup(from);
    for (int i = 0; i < 2500; i++) {
        mkdirat(at, "d", 0755);
        int next = openat(at, "d", O_RDONLY | O_DIRECTORY);
        close(at);
        at = next;
    }
    CHECK(archive_get(from, "/", memfd_create("x", 0), detail) == -ENAMETOOLONG);
    /* Not by archive_remove, which has the same bound: upwards, one at a time. */
    for (int i = 0; i < 2500; i++) {
        int up = openat(at, "..", O_RDONLY | O_DIRECTORY);
        unlinkat(up, "d", AT_REMOVEDIR);
        close(at);
        at = up;
    }
    close(at);
    close(from);
}

/* Puts the bytes of one or more blocks with right checksums. */
static int put_raw(int root, const char *bytes, size_t length)
{
    int fd = memfd_create("raw", MFD_CLOEXEC);
    CHECK(write(fd, bytes, length) == (ssize_t)length);
    return put_fd(root, "/", fd, 0);
}

static void seal(char *block)
{
    unsigned sum = 0;
    memset(block + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += (uint8_t)block[i];
    snprintf(block + 148, 7, "%06o", sum);
}

static void header(char *block, char type, const char *name, unsigned size)
{
    memset(block, 0, 512);
    snprintf(block, 100, "%s", name);
    strcpy(block + 100, "0000644");
    strcpy(block + 108, "0000000");
    strcpy(block + 116, "0000000");
    snprintf(block + 124, 12, "%011o", size);
    strcpy(block + 136, "00000000000");
    block[156] = type;
    memcpy(block + 257, "ustar\00000", 8);
    seal(block);
}

static void malformed_archives_are_refused(void)
{
    int root = fresh("inside");
    char blocks[8 * 512] = {0};
    memset(blocks, 'x', 1024);
    CHECK(put_raw(root, blocks, 1024) == -EINVAL && strstr(detail, "invalid tar header"));
    header(blocks, '0', "f", 5000);
    CHECK(put_raw(root, blocks, 1024) == -EINVAL && !strcmp(detail, "unexpected EOF"));
    header(blocks, 'S', "f", 0);
    CHECK(put_raw(root, blocks, 512) == -EINVAL && strstr(detail, "sparse"));
    header(blocks, 'Q', "f", 0);
    CHECK(put_raw(root, blocks, 512) == -EINVAL && strstr(detail, "unhandled tar header type"));
    header(blocks, 'x', "p", 2 * 1024 * 1024);
    CHECK(put_raw(root, blocks, 1024) == -E2BIG);
    header(blocks, 'L', "p", 2 * 1024 * 1024);
    CHECK(put_raw(root, blocks, 1024) == -E2BIG);
    header(blocks, '0', "f", 0);
    blocks[124] = (char)0xff; /* a negative size in base 256 */
    memset(blocks + 125, 0xff, 11);
    seal(blocks);
    CHECK(put_raw(root, blocks, 512) == -EINVAL);
    header(blocks, '0', "f", 0);
    strcpy(blocks + 124, "9");
    seal(blocks);
    CHECK(put_raw(root, blocks, 512) == -EINVAL);
    CHECK(put_raw(root, blocks, 100) == -EINVAL);
    CHECK(!put_raw(root, blocks, 0));
    close(root);
}

static int put_pax(int root, const char *records, size_t length)
{
    char blocks[3 * 512];
    header(blocks, 'x', "p", (unsigned)length);
    memset(blocks + 512, 0, 512);
    memcpy(blocks + 512, records, length);
    header(blocks + 1024, '0', "f", 0);
    return put_raw(root, blocks, sizeof blocks);
}
#define PUT_PAX(records) put_pax(root, records, sizeof(records) - 1)

static void extended_headers_are_read_strictly(void)
{
    int root = fresh("inside");
    struct stat st;
    CHECK(!PUT_PAX("12 path=new\n") && !fstatat(root, "new", &st, 0));
    CHECK(!PUT_PAX("20 mtime=1.25000000\n") && !fstatat(root, "f", &st, 0));
    CHECK(st.st_mtim.tv_sec == 1 && st.st_mtim.tv_nsec == 250000000);
    CHECK(!PUT_PAX("17 mtime=-1.5000\n") && !fstatat(root, "f", &st, 0));
    CHECK(st.st_mtim.tv_sec == -2 && st.st_mtim.tv_nsec == 500000000);
    CHECK(!PUT_PAX("13 uid=70000\n") && !fstatat(root, "f", &st, 0) && st.st_uid == 70000);
    CHECK(!PUT_PAX("9 path=\n") == false); /* its length is wrong */
    CHECK(!PUT_PAX("8 path=\n") && !fstatat(root, "f", &st, 0));
    CHECK(PUT_PAX("99999999 path=new\n") == -EINVAL);
    CHECK(PUT_PAX("11 path=new\n") == -EINVAL);
    CHECK(PUT_PAX("path=new\n") == -EINVAL);
    CHECK(PUT_PAX("11 pathnew\n\n") == -EINVAL);
    CHECK(PUT_PAX("12 path=n\0w\n") == -EINVAL);
    CHECK(PUT_PAX("12 size=-1x\n") == -EINVAL);
    CHECK(PUT_PAX("27 size=99999999999999999999\n") == -EINVAL);
    CHECK(PUT_PAX("22 GNU.sparse.major=1\n") == -EINVAL && strstr(detail, "sparse"));
    CHECK(PUT_PAX("0 ") == -EINVAL);
    CHECK(PUT_PAX("5 =\n\n") == -EINVAL);
    close(root);
}

static void what_follows_the_end_is_read_and_ignored(void)
{
    int root = fresh("inside"), ends[2];
    struct made *made = make();
    char junk[4096];
    memset(junk, 'j', sizeof junk);
    add(made, TAR_FILE, "f", "", "x");
    tar_write_end(made->writer);
    CHECK(write(made->fd, junk, sizeof junk) == (ssize_t)sizeof junk);
    CHECK(!pipe(ends));
    char all[65536];
    ssize_t length = pread(made->fd, all, sizeof all, 0);
    CHECK(write(ends[1], all, (size_t)length) == length);
    close(ends[1]);
    CHECK(!archive_put(root, "/", ends[0], 0, detail) && holds(root, "f", "x"));
    CHECK(read(ends[0], junk, 1) == 0);
    close(ends[0]);
    close(made->fd);
    free(made->writer);
    free(made);
    close(root);
}

static void a_full_disk_is_told(void)
{
    int full = open("/dev/full", O_WRONLY), root = fresh("inside");
    file(root, "f", "x");
    CHECK(archive_get(root, "/f", full, detail) == -ENOSPC && strstr(detail, "no space left"));
    close(full);
    close(root);
}

int main(void)
{
    if (geteuid() != 0) {
        fputs("archive_test: needs root\n", stderr);
        return 77;
    }
    if (!mkdtemp(top))
        return 1;
    paths_are_cleaned_by_their_text();
    a_name_that_leads_out_is_known();
    links_are_followed_inside_the_root();
    a_path_leaves_the_root_by_no_link();
    a_link_in_the_tar_leads_nowhere_but_into_the_root();
    links_within_the_root_are_followed_like_a_process_would();
    what_exists_is_replaced_but_directories_merge();
    no_overwrite_keeps_directories_and_files_apart();
    a_bad_extraction_point_is_told_in_dockers_words();
    owner_mode_time_and_attributes_arrive();
    a_tree_comes_back_as_it_was();
    a_deep_tree_is_read_and_removed_with_few_descriptors();
    a_tree_beyond_the_longest_path_is_an_error_not_a_crash();
    malformed_archives_are_refused();
    extended_headers_are_read_strictly();
    what_follows_the_end_is_read_and_ignored();
    a_full_disk_is_told();
    int tmp = open("/tmp", O_PATH);
    archive_remove(tmp, top + strlen("/tmp/"), detail);
    close(tmp);
    printf("archive: %d checks, %d failed\n", checks, failures);
    return failures ? 1 : 0;
}
