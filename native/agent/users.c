/* Users and groups of a container's root: a bounded reader of passwd(5) and group(5), and the rules
 * by which Docker makes a user of `name|uid[:group|gid]` (moby/sys/user, GetExecUser). */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "sys.h"

enum { FILE_MOST = 4 << 20, FIELDS_MOST = 7, ID_LAST = 0x7fffffff };

/* The text of a file, NUL-terminated: "" if there is none or if it is not a plain file. */
static char *load(int root, const char *path)
{
    struct stat found;
    int fd = sys_openat2(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0,
                         RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
    bool plain = fd >= 0 && !fstat(fd, &found) && S_ISREG(found.st_mode);
    size_t room = plain && found.st_size < FILE_MOST ? (size_t)found.st_size : FILE_MOST;
    char *text = calloc(1, plain ? room + 1 : 1);
    size_t length = 0;
    ssize_t got = 0;
    while (text && plain && length < room && (got = read(fd, text + length, room - length)) > 0)
        length += (size_t)got;
    if (text)
        text[length] = 0;
    if (fd >= 0)
        close(fd);
    return text;
}

/* Cuts the next line that has something in it, and its fields at colons; absent fields are "".
 * False at the end. */
static bool next_entry(char **at, const char *fields[FIELDS_MOST])
{
    while (**at) {
        char *line = *at, *end = strchr(line, '\n');
        *at = end ? end + 1 : line + strlen(line);
        if (end)
            *end = 0;
        line += strspn(line, " \t\r");
        if (!*line)
            continue;
        for (int i = 0; i < FIELDS_MOST; i++) {
            fields[i] = line ? line : "";
            char *colon = line ? strchr(line, ':') : NULL;
            line = colon ? colon + 1 : NULL;
            if (colon)
                *colon = 0;
        }
        return true;
    }
    return false;
}

/* A decimal number that fits; nothing else in the text. */
static bool number(const char *text, int64_t *value)
{
    char *end;
    if (!isdigit((unsigned char)*text) && *text != '-' && *text != '+')
        return false;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return !*end && !errno;
}

static int out_of_range(struct failure *failure)
{
    return fail(failure, STAGE_USER, EINVAL, "uids and gids must be in range 0-%d", ID_LAST);
}

static bool in_list(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (; list; list = strchr(list, ',')) {
        list += *list == ',';
        if (!strncmp(list, name, length) && (!list[length] || list[length] == ','))
            return true;
    }
    return false;
}

struct names {
    char user[256], group[256]; /* as asked for */
    char found[256];            /* the name of the entry in passwd, "" if there is none */
};

static bool user_matches(const struct names *names, const char *const *fields)
{
    int64_t wanted, here;
    if (!*names->user)
        return number(fields[2], &here) && !here;
    if (number(names->user, &wanted))
        return number(fields[2], &here) && here == wanted;
    return !strcmp(fields[0], names->user);
}

static int find_user(int root, struct names *names, struct user *user, struct failure *failure)
{
    const char *fields[FIELDS_MOST];
    int64_t uid = 0, gid = 0;
    char *text = load(root, "etc/passwd"), *at = text;
    if (!text)
        return fail(failure, STAGE_USER, ENOMEM, "no memory for /etc/passwd");
    snprintf(user->home, sizeof user->home, "/");
    bool found = false;
    while (!found && next_entry(&at, fields))
        found = user_matches(names, fields);
    if (found) {
        /* As with Docker: what is no number counts as 0. */
        if (!number(fields[2], &uid))
            uid = 0;
        if (!number(fields[3], &gid))
            gid = 0;
        snprintf(names->found, sizeof names->found, "%s", fields[0]);
        snprintf(user->home, sizeof user->home, "%s", *fields[5] ? fields[5] : "/");
    }
    free(text);
    if (!found && *names->user && !number(names->user, &uid))
        return fail(failure, STAGE_USER, EINVAL,
                    "unable to find user %s: no matching entries in passwd file", names->user);
    if (uid < 0 || uid > ID_LAST || gid < 0 || gid > ID_LAST)
        return out_of_range(failure);
    user->uid = (uid_t)uid;
    user->gid = (gid_t)gid;
    return 0;
}

static int add_gid(struct user *user, int64_t gid, struct failure *failure)
{
    if (gid < 0 || gid > ID_LAST)
        return out_of_range(failure);
    for (size_t i = 0; i < user->gid_count; i++)
        if (user->gids[i] == (gid_t)gid)
            return 0;
    if (user->gid_count == GIDS_MOST)
        return fail(failure, STAGE_USER, E2BIG, "too many groups");
    user->gids[user->gid_count++] = (gid_t)gid;
    return 0;
}

/* The first entry of a group by name or number: 1, 0 if there is none, then *gid is the number if it
 * was one, -1 if it was not. */
static int find_group(const char *groups, const char *wanted, int64_t *gid)
{
    const char *fields[FIELDS_MOST];
    int64_t asked = -1, here;
    bool numeric = number(wanted, &asked);
    char *text = strdup(groups), *at = text;
    int found = 0;
    *gid = asked;
    while (text && !found && next_entry(&at, fields)) {
        if (!number(fields[2], &here))
            here = 0;
        found = numeric ? here == asked : !strcmp(fields[0], wanted);
        if (found)
            *gid = here;
    }
    free(text);
    return found || numeric ? found : (*gid = -1, 0);
}

static int primary_group(const char *groups, const struct names *names, struct user *user,
                         struct failure *failure)
{
    int64_t gid;
    int64_t ignored;
    if (!find_group(groups, names->group, &gid) && !number(names->group, &ignored))
        return fail(failure, STAGE_USER, EINVAL,
                    "unable to find group %s: no matching entries in group file", names->group);
    if (gid < 0 || gid > ID_LAST)
        return out_of_range(failure);
    user->gid = (gid_t)gid;
    return 0;
}

/* The groups that list the user, only where no group was asked for. */
static int member_groups(const char *groups, const struct names *names, struct user *user,
                         struct failure *failure)
{
    const char *fields[FIELDS_MOST];
    char *text = strdup(groups), *at = text;
    int result = text ? 0 : fail(failure, STAGE_USER, ENOMEM, "no memory for /etc/group");
    int64_t gid;
    while (!result && next_entry(&at, fields))
        if (in_list(fields[3], names->found))
            result = add_gid(user, number(fields[2], &gid) ? gid : 0, failure);
    free(text);
    return result;
}

static int added_groups(const char *groups, const struct process_spec *process, struct user *user,
                        struct failure *failure)
{
    for (size_t i = 0; i < process->groups.count; i++) {
        int64_t gid, ignored;
        const char *wanted = process->groups.items[i];
        if (!find_group(groups, wanted, &gid) && !number(wanted, &ignored))
            return fail(failure, STAGE_USER, EINVAL,
                        "unable to find group %s: no matching entries in group file", wanted);
        if (add_gid(user, gid, failure))
            return -1;
    }
    return 0;
}

static int find_groups(int root, const struct names *names, const struct process_spec *process,
                       struct user *user, struct failure *failure)
{
    char *groups = load(root, "etc/group");
    if (!groups)
        return fail(failure, STAGE_USER, ENOMEM, "no memory for /etc/group");
    int result = *names->group ? primary_group(groups, names, user, failure) : 0;
    /* The primary group is among them too, or it would be lost to a set-group-ID program. */
    if (!result)
        result = add_gid(user, user->gid, failure);
    if (!result && !*names->group && *names->found)
        result = member_groups(groups, names, user, failure);
    if (!result)
        result = added_groups(groups, process, user, failure);
    free(groups);
    return result;
}

int user_find(int root, const struct process_spec *process, struct user *user,
              struct failure *failure)
{
    struct names names = {0};
    size_t length = strcspn(process->user, ":");
    snprintf(names.user, sizeof names.user, "%.*s", (int)length, process->user);
    if (process->user[length])
        snprintf(names.group, sizeof names.group, "%s", process->user + length + 1);
    user->gid_count = 0;
    return find_user(root, &names, user, failure) ||
                   find_groups(root, &names, process, user, failure)
               ? -1
               : 0;
}

/* Names for top */

enum { NAMES_MOST = 4096, NAME_ROOM = 33 };

struct user_names {
    size_t count;
    struct {
        uid_t uid;
        char name[NAME_ROOM];
    } items[NAMES_MOST];
};

struct user_names *user_names_read(int root)
{
    const char *fields[FIELDS_MOST];
    struct user_names *names = calloc(1, sizeof *names);
    char *text = load(root, "etc/passwd"), *at = text;
    int64_t uid;
    while (names && text && names->count < NAMES_MOST && next_entry(&at, fields)) {
        if (!*fields[0] || !number(fields[2], &uid) || uid < 0 || uid > ID_LAST)
            continue;
        names->items[names->count].uid = (uid_t)uid;
        snprintf(names->items[names->count++].name, NAME_ROOM, "%s", fields[0]);
    }
    free(text);
    return names;
}

void user_name(const struct user_names *names, uid_t uid, char *text, size_t room)
{
    for (size_t i = 0; names && i < names->count; i++)
        if (names->items[i].uid == uid) {
            snprintf(text, room, "%s", names->items[i].name);
            return;
        }
    snprintf(text, room, "%u", uid);
}
