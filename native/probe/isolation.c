/* Asking: each inquiry in a process of its own, which may die or hang; its finding comes back by shared memory. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "isolation.h"

#define SECONDS_MAX 3

/* ---- findings ------------------------------------------------------------------------------------------ */

static void find(struct finding *finding, const char *outcome, double score, const char *format, va_list values)
{
	vsnprintf(finding->evidence, sizeof(finding->evidence), format, values);
	finding->score = score;
	finding->outcome = outcome;
}

#define FIND(outcome, score) do { \
	va_list values; \
	va_start(values, format); \
	find(finding, outcome, score, format, values); \
	va_end(values); \
} while (0)

void closed(struct finding *finding, const char *format, ...)
{
	FIND("closed", 1);
}

void opened(struct finding *finding, const char *format, ...)
{
	FIND("open", 0);
}

void untried(struct finding *finding, const char *format, ...)
{
	FIND("not tried", 0);
}

void partly(struct finding *finding, double score, const char *format, ...)
{
	FIND("partly", score);
}

void fact(struct finding *finding, const char *name, const char *format, ...)
{
	if (finding->count == FACTS_MAX)
		return;
	va_list values;
	va_start(values, format);
	snprintf(finding->facts[finding->count].name, sizeof(finding->facts->name), "%s", name);
	vsnprintf(finding->facts[finding->count].value, sizeof(finding->facts->value), format, values);
	va_end(values);
	finding->count++;
}

const char *error_name(int error)
{
	const char *name = strerrorname_np(error);
	return name ? name : "an unknown error";
}

void by_result(struct finding *finding, const char *call, long result)
{
	int error = result < 0 ? errno : 0;
	if (error == EPERM || error == EACCES || error == ENOSYS)
		closed(finding, "%s: %s", call, error_name(error));
	else
		opened(finding, "%s: %s", call, error ? error_name(error) : "done");
}

/* ---- what many of them do -------------------------------------------------------------------------------- */

bool line_of(const char *path, const char *name, char *value, size_t size)
{
	char text[600];
	FILE *file = fopen(path, "re");
	bool found = false;
	while (file && !found && fgets(text, sizeof(text), file))
		if (strncmp(text, name, strlen(name)) == 0) {
			text[strcspn(text, "\n")] = '\0';
			snprintf(value, size, "%s", text + strlen(name) + strspn(text + strlen(name), " \t:"));
			found = true;
		}
	if (file)
		fclose(file);
	return found;
}

pid_t fork_bound(void)
{
	pid_t child = fork();
	if (child == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return child;
}

ssize_t read_start(const char *path, char *text, size_t size)
{
	int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (file < 0)
		return -1;
	ssize_t length = read(file, text, size - 1);
	int error = errno;
	close(file);
	errno = error;
	if (length < 0)
		return -1;
	text[length] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return length;
}

void add_word(char *list, size_t size, const char *word)
{
	size_t used = strlen(list);
	if (used + strlen(word) + 8 < size)
		snprintf(list + used, size - used, "%s%s", used ? ", " : "", word);
	else if (used + 5 < size && !strstr(list, " ..."))
		strcat(list, " ...");
}

bool unshared(int flags)
{
	return unshare(CLONE_NEWUSER | flags) == 0;
}

/* Opened as a writer, nothing written, closed.  ETXTBSY: the right is there, the program runs. */
void ask_writable(struct finding *finding, const struct inquiry *inquiry)
{
	int file = open(inquiry->about, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (file >= 0 || errno == ETXTBSY)
		opened(finding, "%s can be opened for writing", inquiry->about);
	else
		closed(finding, "%s: %s", inquiry->about, error_name(errno));
}

/* `about` is a list of paths; a byte of one of them is enough, one that is empty (masked) is none. */
void ask_readable(struct finding *finding, const struct inquiry *inquiry)
{
	char paths[600], answering[600] = "", text[64];
	unsigned int all = 0, answered = 0;
	snprintf(paths, sizeof(paths), "%s", inquiry->about);
	for (char *path = strtok(paths, " "); path; path = strtok(NULL, " "), all++)
		if (read_start(path, text, sizeof(text)) > 0) {
			add_word(answering, sizeof(answering), path);
			answered++;
		}
	if (answered == 0)
		closed(finding, "none of %u files answers: %s", all, inquiry->about);
	else if (2 * answered > all)
		opened(finding, "%u of %u files answer: %s", answered, all, answering);
	else
		partly(finding, 1 - (double)answered / all, "%u of %u files answer: %s", answered, all, answering);
}

/* What a file says is for the host's side to compare with its own. */
void ask_fact(struct finding *finding, const struct inquiry *inquiry)
{
	char text[600];
	if (read_start(inquiry->about, text, sizeof(text)) > 0) {
		fact(finding, "value", "%s", text);
		opened(finding, "%s says '%.300s'", inquiry->about, text);
	} else {
		closed(finding, "%s does not answer", inquiry->about);
	}
}

/* ---- asking ------------------------------------------------------------------------------------------------ */

static void answer(const struct finding *finding, const struct inquiry *inquiry)
{
	answer_begin("isolation");
	answer_text("key", inquiry->key);
	answer_text("outcome", finding->outcome);
	answer_number("score", finding->score);
	answer_text("evidence", finding->evidence);
	for (size_t i = 0; i < finding->count; i++)
		answer_text(finding->facts[i].name, finding->facts[i].value);
	answer_end();
}

static void ask(const struct inquiry *inquiry, struct finding *shared)
{
	memset(shared, 0, sizeof(*shared));
	untried(shared, "the probe ended before it had found anything");
	pid_t child = fork_bound();
	if (child == 0) {
		prctl(PR_SET_DUMPABLE, 1);
		alarm(SECONDS_MAX);
		inquiry->ask(shared, inquiry);
		_exit(0);
	}
	int status = 0;
	if (child < 0)
		untried(shared, "fork: %s", error_name(errno));
	else if (waitpid(child, &status, 0) == child && WIFSIGNALED(status))
		untried(shared, "the probe was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	answer(shared, inquiry);
}

static bool wanted(const char *key, int count, char **keys)
{
	bool any = count == 0;
	for (int i = 0; i < count; i++)
		any |= strcmp(keys[i], key) == 0 || (strncmp(keys[i], key, strlen(keys[i])) == 0 &&
			key[strlen(keys[i])] == '.');
	return any;
}

/* Without keys all of them; a key may be an axis. */
int isolation_main(int count, char **arguments)
{
	static const struct inquiries *const tables[] = {
		&kernel_inquiries, &device_inquiries, &privilege_inquiries, &sight_inquiries, &escape_inquiries,
	};
	if (count > 0 && strcmp(arguments[0], "do") == 0)
		return step_main(count - 1, arguments + 1);
	struct finding *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	size_t asked = 0;
	for (size_t table = 0; table < sizeof(tables) / sizeof(*tables); table++)
		for (size_t i = 0; i < tables[table]->count; i++)
			if (wanted(tables[table]->all[i].key, count, arguments)) {
				ask(&tables[table]->all[i], shared);
				asked++;
			}
	return asked > 0 ? 0 : 2;
}
