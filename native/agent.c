/* The agent core: requests to processes, and the reaper. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process.h"

/* ---- requests -------------------------------------------------------------------------------------------- */

static void refuse(struct agent *agent, const struct request *request, int error, const char *verb)
{
	struct failure failure;
	errno = error;
	failure_set(&failure, 0, verb, "");
	answer_failure(agent, request->frame->id, request->frame->type, &failure);
}

static void close_three(int fds[3])
{
	for (int i = 0; i < 3; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* A control socket: the child's end in `ends[1]`, ours watched.  The kernel adds the sender's pid. */
static bool open_control(struct process *process, int ends[2])
{
	int yes = 1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return false;
	process->control.fd = ends[0];
	if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 || setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes) < 0) {
		close(ends[1]);
		return false;
	}
	return true;
}

static void setup(struct agent *agent, const struct request *request)
{
	struct failure failure = { 0 };
	struct context context = {
		.fds = request->fds, .fd_count = request->fd_count, .tty_socket = -1, .guest = agent->guest,
	};
	struct plan plan;
	if (!agent->guest) {
		refuse(agent, request, EPERM, "setup");
		return;
	}
	plan_open(&plan, request->payload, request->frame->length);
	if (plan_run(&plan, &context, &failure))
		answer(agent, F_DONE, request->frame->id, F_SETUP);
	else
		answer_failure(agent, request->frame->id, F_SETUP, &failure);
}

static void place(struct agent *agent, const struct request *request)
{
	int control[2];
	if (agent->place.pid) {
		refuse(agent, request, EEXIST, "ns");
		return;
	}
	struct process *process = process_new(agent, request->frame->id);
	if (!process) {
		refuse(agent, request, ENOMEM, "ns");
		return;
	}
	process->placing = true;
	struct failure failure;
	if (!open_control(process, control)) {
		failure_set(&failure, 0, "ns", "");
		process_failed(process, &failure);
		return;
	}
	process->pid = place_start(agent, request, control, &failure);
	close(control[1]);
	if (process->pid < 0) {
		process->pid = 0;
		place_close(&agent->place);
		process_failed(process, &failure);
		return;
	}
	watch_set(&process->control, EPOLLIN);
}

static void launch(struct agent *agent, const struct request *request)
{
	struct process *process = process_find(agent, request->frame->id);
	int stdio[3] = { -1, -1, -1 };
	if (!process || process->control.fd < 0 || process->launching) {
		refuse(agent, request, process ? EBUSY : ESRCH, "exec");
		return;
	}
	process->launching = true;
	process->request = F_LAUNCH;
	if (!process_pipes(process, request->frame->flags, stdio) ||
	    !place_launch(process->control.fd, request, stdio)) {
		struct failure failure;
		failure_set(&failure, 0, "exec", "");
		kill(process->pid, SIGKILL);
		process_failed(process, &failure);
	}
	close_three(stdio);
}

static pid_t exec_child(struct agent *agent, struct process *process, const struct request *request)
{
	int control[2], stdio[3] = { -1, -1, -1 };
	pid_t pid = -1;
	if (!open_control(process, control))
		return -1;
	if (process_pipes(process, request->frame->flags, stdio))
		pid = exec_start(agent, request, control[1], stdio);
	int error = errno;
	close_three(stdio);
	close(control[1]);
	errno = error;
	return pid;
}

static void exec(struct agent *agent, const struct request *request)
{
	bool join = request->frame->flags & LAUNCH_JOIN;
	if (process_find(agent, request->frame->id) || !(join ? agent->place.pid : agent->guest)) {
		refuse(agent, request, process_find(agent, request->frame->id) ? EEXIST : join ? ESRCH : EPERM, "ns");
		return;
	}
	struct process *process = process_new(agent, request->frame->id);
	if (!process) {
		refuse(agent, request, ENOMEM, "ns");
		return;
	}
	process->launching = true;
	process->request = F_EXEC;
	pid_t pid = exec_child(agent, process, request);
	if (pid < 0) {
		struct failure failure;
		failure_set(&failure, 0, "exec", "");
		process_failed(process, &failure);
		return;
	}
	process->pid = join ? 0 : pid;
	watch_set(&process->control, EPOLLIN);
}

static void send_signal(struct agent *agent, const struct request *request)
{
	struct process *process = process_find(agent, request->frame->id);
	if ((request->frame->flags & SIGNAL_ALL) && agent->place.pid)
		place_signal_all(&agent->place, request->frame->argument);
	if (process && process->pid > 0)
		kill(process->pid, request->frame->argument);
}

static void resize(struct agent *agent, const struct request *request)
{
	struct process *process = process_find(agent, request->frame->id);
	uint16_t size[2];
	if (!process || request->frame->length != sizeof size)
		return;
	memcpy(size, request->payload, sizeof size);
	process_resize(process, size);
}

static void input(struct agent *agent, const struct request *request)
{
	struct process *process = process_find(agent, request->frame->id);
	if (process)
		process_write(process, request->payload, request->frame->length);
}

static void close_input(struct agent *agent, const struct request *request)
{
	struct process *process = process_find(agent, request->frame->id);
	if (process)
		process_close_input(process);
}

static void credit(struct agent *agent, const struct request *request)
{
	struct process *process = process_find(agent, request->frame->id);
	uint32_t bytes;
	if (!process || request->frame->length != sizeof bytes)
		return;
	memcpy(&bytes, request->payload, sizeof bytes);
	process_credit(process, bytes);
}

static void (*const handlers[])(struct agent *agent, const struct request *request) = {
	[F_SETUP] = setup,
	[F_PLACE] = place,
	[F_LAUNCH] = launch,
	[F_EXEC] = exec,
	[F_SIGNAL] = send_signal,
	[F_RESIZE] = resize,
	[F_STDIN] = input,
	[F_CLOSE_STDIN] = close_input,
	[F_CREDIT] = credit,
};

void agent_request(struct agent *agent, const struct frame *frame, char *payload, const int *fds, int fd_count)
{
	struct request request = { frame, payload, fds, fd_count };
	if (frame->type < sizeof handlers / sizeof *handlers && handlers[frame->type])
		handlers[frame->type](agent, &request);
}

void agent_kill(struct agent *agent)
{
	for (struct process *process = agent->processes; process; process = process->next)
		if (process->pid > 0)
			kill(process->pid, SIGKILL);
}

/* ---- the reaper -------------------------------------------------------------------------------------------- */

static struct process *find_pid(struct agent *agent, pid_t pid)
{
	struct process *process = agent->processes;
	while (process && process->pid != pid)
		process = process->next;
	return process;
}

/* Who died?  Its last words are read first: they may be its pid, or why it failed. */
static struct process *find_dead(struct agent *agent, pid_t pid)
{
	struct process *process = find_pid(agent, pid);
	if (process) {
		process_reports(process);
		return find_pid(agent, pid);
	}
	struct process *next;
	for (process = agent->processes; process; process = next) {
		next = process->next;
		if (process->pid == 0)
			process_reports(process);
	}
	return find_pid(agent, pid);
}

static void signals_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	struct agent *agent = OWNER(watch, struct agent, signals);
	struct signalfd_siginfo information;
	while (read(watch->fd, &information, sizeof information) > 0)
		;
	siginfo_t dead;
	for (;;) {
		dead.si_pid = 0;
		if (waitid(P_ALL, 0, &dead, WEXITED | WNOHANG | WNOWAIT) < 0 || dead.si_pid == 0)
			return;
		struct process *process = find_dead(agent, dead.si_pid);
		int status = 0;
		waitpid(dead.si_pid, &status, WNOHANG);
		if (process)
			process_exited(process, status);
	}
}

void agent_init(struct agent *agent, agent_emit *emit, bool guest)
{
	sigset_t child;
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	signal(SIGPIPE, SIG_IGN);
	umask(022);
	prctl(PR_SET_DUMPABLE, 0);
	*agent = (struct agent){ .emit = emit, .guest = guest, .place = { .pidfd = -1 } };
	agent->signals = (struct watch){
		.fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK), .ready = signals_ready,
	};
	watch_set(&agent->signals, EPOLLIN);
}
