/* The parent's side of one process: what its child reports, its pipes or terminal, its end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "process.h"

#define END_OF_FILE 4   /* what ends a terminal's input, ^D */

static void control_ready(struct watch *watch, uint32_t events);
static void input_ready(struct watch *watch, uint32_t events);
static void stdout_ready(struct watch *watch, uint32_t events);
static void stderr_ready(struct watch *watch, uint32_t events);

struct process *process_new(struct agent *agent, uint32_t id)
{
	struct process *process = calloc(1, sizeof *process);
	if (!process)
		return NULL;
	process->agent = agent;
	process->id = id;
	process->control = (struct watch){ .fd = -1, .ready = control_ready };
	process->input = (struct watch){ .fd = -1, .ready = input_ready };
	process->output[0] = (struct watch){ .fd = -1, .ready = stdout_ready };
	process->output[1] = (struct watch){ .fd = -1, .ready = stderr_ready };
	process->next = agent->processes;
	agent->processes = process;
	return process;
}

struct process *process_find(struct agent *agent, uint32_t id)
{
	struct process *process = agent->processes;
	while (process && process->id != id)
		process = process->next;
	return process;
}

static void process_free(struct process *process)
{
	struct process **link = &process->agent->processes;
	while (*link != process)
		link = &(*link)->next;
	*link = process->next;
	if (process->pid && process->pid == process->agent->place.pid)
		place_close(&process->agent->place);
	watch_close(&process->control);
	watch_close(&process->input);
	watch_close(&process->output[0]);
	watch_close(&process->output[1]);
	queue_free(&process->pending);
	free(process);
}

/* ---- answers ------------------------------------------------------------------------------------------- */

void answer(struct agent *agent, uint8_t type, uint32_t id, uint8_t request)
{
	agent->emit(agent, &(struct frame){ .type = type, .argument = request, .id = id }, NULL);
}

uint32_t failure_encode(const struct failure *failure, char payload[FAILURE_MAX])
{
	size_t verb = strnlen(failure->verb, sizeof failure->verb - 1);
	size_t argument = strnlen(failure->argument, sizeof failure->argument - 1);
	memset(payload, 0, FAILURE_MAX);
	memcpy(payload, &failure->step, 4);
	memcpy(payload + 4, &failure->error, 4);
	memcpy(payload + 8, failure->verb, verb);
	memcpy(payload + 9 + verb, failure->argument, argument);
	return (uint32_t)(10 + verb + argument);
}

void answer_failure(struct agent *agent, uint32_t id, uint8_t request, const struct failure *failure)
{
	char payload[FAILURE_MAX];
	uint32_t length = failure_encode(failure, payload);
	agent->emit(agent, &(struct frame){ .length = length, .type = F_FAILED, .argument = request, .id = id }, payload);
}

static void answer_pid(struct process *process, uint8_t type, uint8_t request)
{
	uint32_t pid = (uint32_t)process->pid;
	struct frame frame = { .length = sizeof pid, .type = type, .argument = request, .id = process->id };
	process->agent->emit(process->agent, &frame, &pid);
}

void process_failed(struct process *process, const struct failure *failure)
{
	struct process gone = *process;
	process_free(process);
	if (gone.placing)
		answer_failure(gone.agent, gone.id, F_PLACE, failure);
	if (gone.launching)
		answer_failure(gone.agent, gone.id, gone.request, failure);
}

/* ---- the child's reports -------------------------------------------------------------------------------- */

/* Read in one piece: this is on the way of every start and end, where every line is emulated. */
static uint64_t guest_oom_kills(void)
{
	static const char name[] = "\noom_kill ";
	char text[16384];
	int file = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
	ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
	if (file >= 0)
		close(file);
	text[length > 0 ? length : 0] = '\0';
	const char *found = strstr(text, name);
	return found ? strtoull(found + sizeof name - 1, NULL, 10) : 0;
}

static void started(struct process *process)
{
	watch_close(&process->control);
	process->launching = false;
	if (process->agent->guest && process->request == F_EXEC)
		process->oom_kills = guest_oom_kills();
	answer_pid(process, F_STARTED, process->request);
	watch_set(&process->output[0], EPOLLIN);
	watch_set(&process->output[1], EPOLLIN);
}

static void take_terminal(struct process *process, int master)
{
	watch_close(&process->input);
	watch_close(&process->output[0]);
	watch_close(&process->output[1]);
	fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
	process->tty = true;
	process->output[0].fd = master;
	process->input.fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
	if (process->size[0])
		process_resize(process, process->size);
}

/* The control socket ended: the program runs, or the child died before it could. */
static void control_ended(struct process *process)
{
	if (process->launching && !process->placing && process->pid) {
		started(process);
	} else if (process->pid) {
		watch_close(&process->control);         /* the waiting child died: the reaper tells */
	} else {
		struct failure failure = { .error = ESRCH, .verb = "ns" };
		process_failed(process, &failure);      /* died before it joined */
	}
}

/* One report; false when there is no more, or the process is gone. */
static bool handle_report(struct process *process)
{
	struct failure failure;
	struct sent sent;
	ssize_t length = receive_message(process->control.fd, &failure, sizeof failure, &sent);
	if (length < 0)
		return false;
	if (length == 0) {
		control_ended(process);
		return false;
	}
	if (length == sizeof failure) {
		process_failed(process, &failure);
		return false;
	}
	char kind = *(const char *)&failure;
	if (sent.count > 0) {
		take_terminal(process, sent.fds[0]);
	} else if (kind == REPORT_JOINED) {
		process->pid = sent.pid;
	} else if (kind == REPORT_PLACED) {
		process->placing = false;
		if (process->agent->guest)
			process->oom_kills = guest_oom_kills();
		answer_pid(process, F_PLACED, F_PLACE);
	}
	return true;
}

void process_reports(struct process *process)
{
	while (process->control.fd >= 0 && handle_report(process))
		;
}

static void control_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	handle_report(OWNER(watch, struct process, control));
}

/* ---- stdio ------------------------------------------------------------------------------------------------ */

/* A pipe whose end `mine` (0 reads, 1 writes) is ours; the other is for the child.  It belongs to the
 * place's root, so that its programs may open /dev/stdout. */
static bool make_pipe(struct watch *watch, int mine, int *child, uint32_t owner)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	watch->fd = ends[mine];
	*child = ends[!mine];
	if (owner && fchown(*child, owner, owner) < 0)
		return false;
	return fcntl(watch->fd, F_SETFL, O_NONBLOCK) == 0;
}

bool process_pipes(struct process *process, uint8_t flags, int child[3])
{
	uint32_t owner = process->agent->place.base;
	bool terminal = flags & LAUNCH_TTY;
	for (int i = 0; i < 3; i++) {
		bool piped = !terminal && (i > 0 || (flags & LAUNCH_STDIN));
		struct watch *watch = i == 0 ? &process->input : &process->output[i - 1];
		if (piped && !make_pipe(watch, i == 0, &child[i], owner))
			return false;
		if (!piped && (child[i] = open("/dev/null", O_RDWR | O_CLOEXEC)) < 0)
			return false;
	}
	return true;
}

static void emit_credit(struct process *process, uint32_t bytes)
{
	struct frame frame = { .length = sizeof bytes, .type = F_CREDIT, .id = process->id };
	if (bytes)
		process->agent->emit(process->agent, &frame, &bytes);
}

static void drop_input(struct process *process)
{
	uint32_t lost = (uint32_t)queue_length(&process->pending);
	queue_free(&process->pending);
	watch_close(&process->input);
	emit_credit(process, lost);
}

bool process_write(struct process *process, const void *bytes, uint32_t length)
{
	size_t before = queue_length(&process->pending);
	if (before + length > CREDIT_WINDOW)
		return false;
	if (process->input.fd < 0 || process->closing) {
		emit_credit(process, length);
		return true;
	}
	if (!queue_write(&process->pending, process->input.fd, bytes, length)) {
		emit_credit(process, length);
		drop_input(process);
		return true;
	}
	emit_credit(process, (uint32_t)(before + length - queue_length(&process->pending)));
	if (queue_length(&process->pending) > 0)
		watch_set(&process->input, EPOLLOUT);
	return true;
}

static void input_done(struct process *process)
{
	watch_pause(&process->input);
	if (process->closing)
		drop_input(process);
}

static void input_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	struct process *process = OWNER(watch, struct process, input);
	ssize_t count = queue_flush(&process->pending, watch->fd);
	if (count < 0) {
		drop_input(process);
		return;
	}
	bool done = queue_length(&process->pending) == 0;
	emit_credit(process, (uint32_t)count);
	if (done)
		input_done(process);
}

void process_close_input(struct process *process)
{
	if (process->input.fd < 0)
		return;
	if (process->tty) {
		char key = END_OF_FILE;
		if (!queue_write(&process->pending, process->input.fd, &key, 1))
			drop_input(process);
		else if (queue_length(&process->pending) > 0)
			watch_set(&process->input, EPOLLOUT);
		return;
	}
	process->closing = true;
	if (queue_length(&process->pending) == 0)
		drop_input(process);
}

/* One piece of output; 0 when there is none now, -1 at its end. */
static ssize_t forward(struct process *process, int index, uint32_t limit)
{
	char bytes[CHUNK_MAX];
	size_t wanted = limit < sizeof bytes ? limit : sizeof bytes;
	ssize_t count = read(process->output[index].fd, bytes, wanted);
	if (count < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (count <= 0)
		return -1;
	process->unacknowledged += (uint32_t)count;
	struct frame frame = {
		.length = (uint32_t)count, .type = F_OUTPUT, .flags = index ? OUTPUT_ERR : OUTPUT_OUT, .id = process->id,
	};
	process->agent->emit(process->agent, &frame, bytes);
	return count;
}

static void output_ready(struct process *process, int index)
{
	if (process->unacknowledged >= CREDIT_WINDOW) {
		watch_pause(&process->output[0]);
		watch_pause(&process->output[1]);
	} else if (forward(process, index, CREDIT_WINDOW - process->unacknowledged) < 0) {
		watch_close(&process->output[index]);
	}
}

static void stdout_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	output_ready(OWNER(watch, struct process, output[0]), 0);
}

static void stderr_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	output_ready(OWNER(watch, struct process, output[1]), 1);
}

/* What the pipes still hold, beyond the credit: the sender of it is gone, so it has an end. */
static void drain(struct process *process, int index)
{
	ssize_t count = 1;
	for (uint32_t total = 0; count > 0 && total < DRAIN_MAX; total += (uint32_t)count)
		count = process->output[index].fd < 0 ? -1 : forward(process, index, CHUNK_MAX);
}

static void emit_exit(const struct process *process, int status)
{
	uint32_t number = WIFSIGNALED(status) ? (uint32_t)WTERMSIG(status) : 0;
	struct exit_report report = {
		.code = number ? 128 + number : (uint32_t)WEXITSTATUS(status),
		.signal = number,
		.finished_ns = now_ns(),
	};
	bool oom = process->agent->guest && guest_oom_kills() > process->oom_kills;
	struct frame frame = {
		.length = sizeof report, .type = F_EXIT, .flags = oom ? EXIT_OOM : 0, .id = process->id,
	};
	process->agent->emit(process->agent, &frame, &report);
}

void process_exited(struct process *process, int status)
{
	if (process->launching && !process->placing)
		started(process);
	if (process->placing) {
		struct failure failure = { .error = ESRCH, .verb = "ns", .argument = "the child was killed" };
		process_failed(process, &failure);
		return;
	}
	drain(process, 0);
	drain(process, 1);
	struct process gone = *process;
	process_free(process);
	if (gone.agent->guest && gone.id == MAIN && !place_pinned)
		sync();         /* the machine ends without a shutdown */
	emit_exit(&gone, status);
}

void process_credit(struct process *process, uint32_t bytes)
{
	process->unacknowledged -= bytes < process->unacknowledged ? bytes : process->unacknowledged;
	if (process->launching)
		return;
	watch_set(&process->output[0], EPOLLIN);
	watch_set(&process->output[1], EPOLLIN);
}

void process_resize(struct process *process, const uint16_t size[2])
{
	struct winsize window = { .ws_row = size[0], .ws_col = size[1] };
	memmove(process->size, size, sizeof process->size);     /* which may be the very same */
	if (process->tty)
		ioctl(process->output[0].fd, TIOCSWINSZ, &window);
}
