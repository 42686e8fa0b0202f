/* The `user` verb: who a process is, by Docker's rules, from files of the image that nobody trusts. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "verbs.h"

#define FILE_MAX (1u << 20)     /* of /etc/passwd or /etc/group; a larger one is EFBIG */
#define ID_MAX 0x7fffffffL      /* CVE-2024-40635 */
#define GROUPS_MAX 1024

struct identity {
	uid_t uid;
	gid_t gid;
	const char *name;       /* as in passwd; NULL when not listed there */
	const char *home;
	size_t group_count;
	gid_t groups[GROUPS_MAX];
};

/* ---- reading ----------------------------------------------------------------------------------- */

/* The text of a small regular file, "" when there is none.  Nothing else is ever opened for reading:
 * a fifo would block, a device do who knows what. */
static char *read_text(struct context *context, const char *path)
{
	struct stat facts;
	context->failed = path;
	int found = path_open(path, O_PATH, 0);
	if (found < 0)
		return errno == ENOENT || errno == ENOTDIR ? calloc(1, 1) : NULL;
	int failed = fstat(found, &facts);
	close_with(found, 0);
	if (failed < 0)
		return NULL;
	if (!S_ISREG(facts.st_mode) || facts.st_size > FILE_MAX) {
		errno = S_ISREG(facts.st_mode) ? EFBIG : EINVAL;
		return NULL;
	}
	int file = path_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	size_t length = 0, size = (size_t)facts.st_size;
	char *text = file < 0 ? NULL : malloc(size + 1);
	for (ssize_t count = 1; text && count > 0 && length < size; length += (size_t)count) {
		count = read(file, text + length, size - length);
		if (count < 0) {
			free(text);
			text = NULL;
			break;
		}
	}
	if (text)
		text[length] = '\0';
	if (file >= 0)
		close_with(file, 0);
	return text;
}

/* Cuts the next line out of the text and splits it at colons; missing fields are "". */
static bool next_entry(char **text, char *fields[], int count)
{
	static char empty[] = "";
	char *line = strsep(text, "\n");
	if (!line)
		return false;
	for (int i = 0; i < count; i++) {
		char *field = line ? strsep(&line, ":") : NULL;
		fields[i] = field ? field : empty;
	}
	return true;
}

/* An id in plain decimal digits: 1 yes, 0 no number at all, -1 too large (errno ERANGE). */
static int parse_id(const char *text, unsigned *id)
{
	size_t digits = strspn(text, "0123456789");
	if (digits == 0 || text[digits] != '\0')
		return 0;
	errno = 0;
	long value = strtol(text, NULL, 10);
	if (errno != 0 || value > ID_MAX) {
		errno = ERANGE;
		return -1;
	}
	*id = (unsigned)value;
	return 1;
}

/* ---- looking up -------------------------------------------------------------------------------- */

/* A user by name or number ("" is number 0); the first entry that has either, as Docker does. */
static int find_user(struct context *context, const char *wanted, char *passwd, struct identity *who)
{
	unsigned id = 0, uid, gid;
	char *fields[6];
	int numeric = *wanted ? parse_id(wanted, &id) : 1;
	if (numeric < 0)
		return verb_fail(context, wanted, errno);
	while (next_entry(&passwd, fields, 6)) {
		if (fields[0][0] == '\0' || parse_id(fields[2], &uid) != 1 || parse_id(fields[3], &gid) != 1)
			continue;
		if ((*wanted && strcmp(fields[0], wanted) == 0) || (numeric && uid == id)) {
			who->uid = uid;
			who->gid = gid;
			who->name = fields[0];
			who->home = fields[5];
			return 0;
		}
	}
	if (!numeric)
		return verb_fail(context, wanted, EINVAL);
	who->uid = id;
	return 0;
}

static int add_group(struct identity *who, gid_t gid)
{
	for (size_t i = 0; i < who->group_count; i++)
		if (who->groups[i] == gid)
			return 0;
	if (who->group_count == GROUPS_MAX) {
		errno = E2BIG;
		return -1;
	}
	who->groups[who->group_count++] = gid;
	return 0;
}

/* A group by name or number; a number need not be listed. */
static int find_group(struct context *context, const char *wanted, const char *group, gid_t *gid)
{
	unsigned id = 0, listed;
	char *fields[3];
	int numeric = parse_id(wanted, &id);
	if (numeric < 0)
		return verb_fail(context, wanted, errno);
	char *text = strdup(group), *rest = text;
	if (!text)
		return -1;
	bool found = false;
	while (!found && next_entry(&rest, fields, 3)) {
		if (fields[0][0] == '\0' || parse_id(fields[2], &listed) != 1)
			continue;
		found = strcmp(fields[0], wanted) == 0 || (numeric && listed == id);
	}
	free(text);
	if (!found && !numeric)
		return verb_fail(context, wanted, EINVAL);
	*gid = found ? listed : id;
	return 0;
}

static bool is_member(char *members, const char *name)
{
	for (char *member; (member = strsep(&members, ","));)
		if (strcmp(member, name) == 0)
			return true;
	return false;
}

/* The groups that list the user among their members. */
static int add_memberships(struct identity *who, const char *group)
{
	unsigned gid;
	char *fields[4];
	char *text = strdup(group), *rest = text;
	int result = text ? 0 : -1;
	while (result == 0 && next_entry(&rest, fields, 4))
		if (parse_id(fields[2], &gid) == 1 && is_member(fields[3], who->name))
			result = add_group(who, gid);
	free(text);
	return result;
}

/* Fills in the group ids; the primary one is among the supplementary ones (CVE-2022-36109). */
static int find_groups(struct context *context, struct identity *who, const char *wanted, char **extra,
		       const char *group)
{
	if (*wanted && find_group(context, wanted, group, &who->gid) < 0)
		return -1;
	if (add_group(who, who->gid) < 0)
		return -1;
	if (!*wanted && who->name && add_memberships(who, group) < 0)
		return -1;
	for (; *extra; extra++) {
		gid_t gid;
		if (find_group(context, *extra, group, &gid) < 0 || add_group(who, gid) < 0)
			return -1;
	}
	return 0;
}

/* ---- becoming ---------------------------------------------------------------------------------- */

static int set_home(struct context *context, const char *home)
{
	char *setting;
	if (environment_get(context, "HOME"))
		return 0;
	if (asprintf(&setting, "HOME=%s", home && *home ? home : "/") < 0)
		return -1;
	return environment_set(context, setting);
}

/* Stdio the process could otherwise not open again through /proc/self/fd (the image's /dev/stdout).
 * That of another owner's making is beyond the place's root and left alone. */
static void give_stdio(uid_t uid)
{
	struct stat facts;
	for (int fd = 0; fd < 3; fd++)
		if (fstat(fd, &facts) == 0 && facts.st_uid != uid
		    && (isatty(fd) || S_ISFIFO(facts.st_mode) || S_ISSOCK(facts.st_mode))
		    && fchown(fd, uid, (gid_t)-1) < 0)
			continue;
}

static int become(struct context *context, const struct identity *who)
{
	give_stdio(who->uid);
	if (setgroups(who->group_count, who->groups) < 0)
		return -1;
	if (setresgid(who->gid, who->gid, who->gid) < 0 || setresuid(who->uid, who->uid, who->uid) < 0)
		return -1;
	return set_home(context, who->home);
}

VERB(user)
{
	(void)argc;
	static struct identity who;     /* a plan changes its user once, and then it is a program */
	char *passwd = read_text(context, "/etc/passwd");
	char *group = passwd ? read_text(context, "/etc/group") : NULL;
	char *name = group ? strdup(argv[0]) : NULL;
	if (!name)
		return -1;
	context->failed = argv[0];
	char *wanted = name, *wanted_group = strchr(name, ':');
	static char none[] = "";
	if (wanted_group)
		*wanted_group++ = '\0';
	else
		wanted_group = none;
	if (find_user(context, wanted, passwd, &who) < 0)
		return -1;
	if (find_groups(context, &who, wanted_group, argv + 1, group) < 0)
		return -1;
	return become(context, &who);
}
