/* Children: how they are made, how they enter a place, what they do until their plan takes over. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process.h"

/* Without these a place would be no place: its root the host's, its signals everybody's. */
#define HOST_NEEDS (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS)

#define PLAN_INLINE 32768u      /* bytes of a plan that fit the order to go */

/* The head of a PLACE plan: numbers of its steps, for reports, and how many ids are mapped. */
struct head {
	uint32_t ns, idmap, cgroup;
	uint32_t count;
	bool maps;
};

void failure_set(struct failure *failure, uint32_t step, const char *verb, const char *argument)
{
	*failure = (struct failure){ .step = step, .error = (uint32_t)errno };
	snprintf(failure->verb, sizeof failure->verb, "%s", verb);
	snprintf(failure->argument, sizeof failure->argument, "%s", argument);
}

static pid_t clone_into(unsigned flags, int exit_signal, int *pidfd)
{
	struct clone_args args = {
		.flags = flags | (pidfd ? CLONE_PIDFD : 0),
		.pidfd = (uintptr_t)pidfd,
		.exit_signal = (unsigned)exit_signal,
	};
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

/* ---- the child's side ------------------------------------------------------------------------------------ */

static _Noreturn void child_fail(int control, uint32_t step, const char *verb)
{
	struct failure failure;
	failure_set(&failure, step, verb, "");
	send(control, &failure, sizeof failure, MSG_NOSIGNAL);
	_exit(125);
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Closes every descriptor above 2 but these; what stays is closed by exec. */
static void keep_only(int *keep, size_t count)
{
	unsigned next = 3;
	qsort(keep, count, sizeof *keep, by_number);
	for (size_t i = 0; i < count; i++) {
		if (keep[i] < (int)next)
			continue;
		if (keep[i] > (int)next)
			close_range(next, (unsigned)keep[i] - 1, 0);
		next = (unsigned)keep[i] + 1;
	}
	close_range(next, ~0U, 0);
	close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
}

static void set_stdio(const int stdio[3])
{
	for (int i = 0; i < 3; i++)
		if (dup2(stdio[i], i) < 0)
			_exit(125);
}

static void default_signals(void)
{
	sigset_t none;
	sigemptyset(&none);
	/* Not by signal(3): libc keeps 32 and 33 to itself, yet a parent may have left them ignored. */
	struct { void (*handler)(int); unsigned long flags; void (*restorer)(void); uint64_t mask; } plain = { 0 };
	for (int i = 1; i < 65; i++)
		syscall(SYS_rt_sigaction, i, &plain, NULL, sizeof plain.mask);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int enter_cgroups(const struct place *place)
{
	for (int i = 0; i < place->cgroup_count; i++)
		if (write(place->cgroups[i], "0", 1) < 0)
			return -1;
	return 0;
}

/* Root of the place, without the engine's groups.  Changing ids clears what prctl sets, so that comes last. */
static int become_root(void)
{
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return -1;
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		return -1;
	return prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* Away with everything of the parent's but what the plan, and entering the place, need. */
static void child_setup(int control, const int stdio[3], const struct request *request, const struct place *place)
{
	int keep[FDS_MAX + CGROUPS_MAX + 2];
	size_t count = 0;
	keep[count++] = control;
	for (int i = 0; i < request->fd_count; i++)
		keep[count++] = request->fds[i];
	for (int i = 0; place && i < place->cgroup_count; i++)
		keep[count++] = place->cgroups[i];
	if (place)
		keep[count++] = place->pidfd;
	if (stdio)
		set_stdio(stdio);
	keep_only(keep, count);
	default_signals();
	setsid();
}

/* Executes a plan to its end; returns when the plan may end so, otherwise never. */
static void run_plan(struct plan *plan, const struct request *request, int control, bool guest)
{
	struct failure failure = { 0 };
	struct context context = {
		.fds = request->fds, .fd_count = request->fd_count, .tty_socket = control, .guest = guest,
	};
	if (plan_run(plan, &context, &failure)) {
		if (request->frame->type == F_PLACE)
			return;
		errno = EINVAL;
		child_fail(control, plan->index, "exec");
	}
	send(control, &failure, sizeof failure, MSG_NOSIGNAL);
	_exit(125);
}

/* What tells the waiting child to go: a plan, or the length of one in a memory file sent along. */
struct order {
	uint32_t length;
	char plan[PLAN_INLINE];
};

/* The plan of an order; its descriptors are then stdio and the request's. */
static char *ordered_plan(struct order *order, size_t received, struct sent *sent)
{
	if (received - sizeof order->length == order->length)
		return order->plan;
	if (received != sizeof order->length || sent->count < 4)
		return NULL;
	int file = sent->fds[0];
	memmove(sent->fds, sent->fds + 1, (size_t)--sent->count * sizeof(int));
	char *plan = mmap(NULL, order->length, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	close(file);
	return plan == MAP_FAILED ? NULL : plan;
}

/* Blocks until LAUNCH and executes its plan. */
static _Noreturn void wait_for_launch(int control, bool guest)
{
	static struct order order;
	struct sent sent;
	ssize_t count;
	do
		count = receive_message(control, &order, sizeof order, &sent);
	while (count < 0 && errno == EINTR);
	if (count < (ssize_t)sizeof order.length)
		_exit(125);
	char *bytes = ordered_plan(&order, (size_t)count, &sent);
	if (!bytes || sent.count < 3)
		child_fail(control, 0, "exec");
	set_stdio(sent.fds);
	for (int i = 0; i < 3; i++)
		close(sent.fds[i]);
	struct frame frame = { .type = F_LAUNCH };
	struct request request = { &frame, bytes, sent.fds + 3, sent.count - 3 };
	struct plan plan;
	plan_open(&plan, bytes, order.length);
	run_plan(&plan, &request, control, guest);
	_exit(125);
}

/* ---- PLACE --------------------------------------------------------------------------------------------------- */

/* A `cgroup` step's argument as a descriptor of our own. */
static int open_cgroup(const char *name, const struct request *request)
{
	if (strncmp(name, "fd:", 3) != 0)
		return open(name, O_WRONLY | O_CLOEXEC);
	long index = strtol(name + 3, NULL, 10);
	if (index < 0 || index >= request->fd_count) {
		errno = EBADF;
		return -1;
	}
	return fcntl(request->fds[index], F_DUPFD_CLOEXEC, 3);
}

/* One leading step; 0: it is none of ours. */
static int read_step(struct place *place, struct head *head, uint32_t number, const struct step *step,
                     const struct request *request)
{
	errno = EINVAL;
	if (strcmp(step->verb, "ns") == 0) {
		head->ns = number;
		place->namespaces = namespaces_flags(step->argc, step->argv);
		return place->namespaces < 0 ? -1 : 1;
	}
	if (strcmp(step->verb, "idmap") == 0) {
		if (step->argc != 2)
			return -1;
		head->idmap = number;
		head->maps = true;
		place->base = (uint32_t)strtoul(step->argv[0], NULL, 10);
		head->count = (uint32_t)strtoul(step->argv[1], NULL, 10);
		return 1;
	}
	if (strcmp(step->verb, "cgroup") != 0)
		return 0;
	if (step->argc != 1 || place->cgroup_count == CGROUPS_MAX)
		return -1;
	int fd = open_cgroup(step->argv[0], request);
	if (fd < 0)
		return -1;
	head->cgroup = number;
	place->cgroups[place->cgroup_count++] = fd;
	return 1;
}

/* The plan's head; leaves `plan` at the first step for the child. */
static bool read_head(struct place *place, struct head *head, struct plan *plan, const struct request *request,
                      struct failure *failure)
{
	for (uint32_t number = 0;; number++) {
		char *cursor = plan->cursor;
		uint32_t index = plan->index;
		struct step step;
		int state = plan_next(plan, &step);
		if (state == 0)
			return true;
		if (state > 0)
			state = read_step(place, head, number, &step, request);
		else
			step = (struct step){ .verb = "plan" };
		if (state < 0) {
			failure_set(failure, number, step.verb, step.argc > 0 ? step.argv[0] : "");
			return false;
		}
		if (state == 0) {
			plan->cursor = cursor;
			plan->index = index;
			return true;
		}
	}
}

static int write_map(pid_t pid, const char *name, uint32_t base, uint32_t count)
{
	char path[64], text[64];
	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	int length = snprintf(text, sizeof text, "0 %u %u\n", base, count);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t written = write(fd, text, (size_t)length);
	int error = errno;
	close(fd);
	errno = error;
	return written == length ? 0 : -1;
}

static void await_release(int control)
{
	char byte;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ssize_t count;
	do
		count = recv(control, &byte, 1, 0);
	while (count < 0 && errno == EINTR);
	if (count != 1)
		_exit(125);
}

static _Noreturn void place_child(const struct agent *agent, const struct head *head, struct plan *plan,
                                  const struct request *request, int control)
{
	const struct place *place = &agent->place;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int stdio[] = { null, null, null };
	child_setup(control, stdio, request, place);
	await_release(control);
	if (enter_cgroups(place) < 0)
		child_fail(control, head->cgroup, "cgroup");
	if (become_root() < 0)
		child_fail(control, head->idmap, "idmap");
	if ((place->namespaces & CLONE_NEWCGROUP) && unshare(CLONE_NEWCGROUP) < 0)
		child_fail(control, head->ns, "ns");
	if ((place->namespaces & CLONE_NEWNS) && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		child_fail(control, head->ns, "ns");
	run_plan(plan, request, control, agent->guest);
	keep_only(&control, 1);
	char report = REPORT_PLACED;
	send(control, &report, 1, MSG_NOSIGNAL);
	wait_for_launch(control, agent->guest);
}

pid_t place_start(struct agent *agent, const struct request *request, const int control[2], struct failure *failure)
{
	struct place *place = &agent->place;
	struct head head = { 0 };
	struct plan plan;
	plan_open(&plan, request->payload, request->frame->length);
	*place = (struct place){ .pidfd = -1 };
	if (!read_head(place, &head, &plan, request, failure))
		return -1;
	if (!agent->guest && (place->namespaces & HOST_NEEDS) != HOST_NEEDS) {
		errno = EINVAL;
		failure_set(failure, head.ns, "ns", "a place on a host needs user, pid and mount");
		return -1;
	}
	/* The cgroup namespace is made by the child, when it is in its cgroups. */
	unsigned flags = (unsigned)place->namespaces & ~(unsigned)CLONE_NEWCGROUP;
	pid_t pid = clone_into(flags, SIGCHLD, &place->pidfd);
	if (pid == 0)
		place_child(agent, &head, &plan, request, control[1]);
	bool mapped = pid > 0 && (!head.maps || (write_map(pid, "uid_map", place->base, head.count) == 0 &&
	                                        write_map(pid, "gid_map", place->base, head.count) == 0));
	if (!mapped || send(control[0], "", 1, MSG_NOSIGNAL) != 1) {
		failure_set(failure, pid < 0 ? head.ns : head.idmap, pid < 0 ? "ns" : "idmap", "");
		if (pid > 0)
			kill(pid, SIGKILL);
		return -1;
	}
	place->pid = pid;
	return pid;
}

void place_close(struct place *place)
{
	for (int i = 0; i < place->cgroup_count; i++)
		close(place->cgroups[i]);
	if (place->pidfd >= 0)
		close(place->pidfd);
	*place = (struct place){ .pidfd = -1 };
}

/* ---- LAUNCH --------------------------------------------------------------------------------------------------- */

/* A large plan goes as a memory file, so that telling the child never blocks. */
static int plan_file(const struct request *request)
{
	int fd = memfd_create("plan", MFD_CLOEXEC);
	if (fd < 0)
		return -1;
	for (size_t done = 0; done < request->frame->length;) {
		ssize_t count = write(fd, request->payload + done, request->frame->length - done);
		if (count <= 0) {
			close(fd);
			return -1;
		}
		done += (size_t)count;
	}
	return fd;
}

bool place_launch(int control, const struct request *request, const int stdio[3])
{
	static struct order order;
	int fds[SENT_MAX], count = 0;
	size_t size = sizeof order.length;
	order.length = request->frame->length;
	if (order.length > 0 && order.length <= sizeof order.plan) {
		memcpy(order.plan, request->payload, order.length);
		size += order.length;
	} else if ((fds[count++] = plan_file(request)) < 0) {
		return false;
	}
	memcpy(fds + count, stdio, 3 * sizeof(int));
	memcpy(fds + count + 3, request->fds, (size_t)request->fd_count * sizeof(int));
	bool sent = send_message(control, &order, size, fds, count + 3 + request->fd_count) == (ssize_t)size;
	if (count > 0)
		close(fds[0]);
	return sent;
}

/* ---- EXEC ------------------------------------------------------------------------------------------------------ */

/* Enters the place.  A pid namespace holds only children made after it was joined, so the caller's
 * twin goes on, as a child of the caller's parent, and the caller ends. */
static void join_place(const struct place *place, int control, bool beside)
{
	if (!beside && enter_cgroups(place) < 0)
		child_fail(control, 0, "cgroup");
	if (place->namespaces && setns(place->pidfd, place->namespaces) < 0)
		child_fail(control, 0, "ns");
	prctl(PR_SET_DUMPABLE, 0);
	pid_t pid = clone_into(CLONE_PARENT, 0, NULL);
	if (pid < 0)
		child_fail(control, 0, "ns");
	if (pid > 0)
		_exit(0);
	char report = REPORT_JOINED;    /* the kernel adds our pid, in the parent's numbers */
	if (send(control, &report, 1, MSG_NOSIGNAL) != 1)
		_exit(125);
}

pid_t exec_start(const struct agent *agent, const struct request *request, int control, const int stdio[3])
{
	pid_t pid = clone_into(0, SIGCHLD, NULL);
	if (pid != 0)
		return pid;
	bool join = request->frame->flags & LAUNCH_JOIN;
	child_setup(control, stdio, request, join ? &agent->place : NULL);
	if (join) {
		join_place(&agent->place, control, agent->guest && (request->frame->flags & LAUNCH_BESIDE));
		child_setup(control, NULL, request, NULL);
	}
	if (become_root() < 0)
		child_fail(control, 0, "idmap");
	struct plan plan;
	plan_open(&plan, request->payload, request->frame->length);
	run_plan(&plan, request, control, agent->guest);
	_exit(125);
}

/* kill(-1) from inside the pid namespace: all of it at once, nothing outside.  Its first process is not included. */
void place_signal_all(const struct place *place, int signal_number)
{
	if (!(place->namespaces & CLONE_NEWPID))
		return;         /* kill(-1) here would mean the whole machine */
	pid_t pid = clone_into(0, SIGCHLD, NULL);
	if (pid != 0)
		return;
	if (setns(place->pidfd, CLONE_NEWPID) < 0)
		_exit(125);
	pid_t inside = clone_into(0, SIGCHLD, NULL);
	if (inside == 0) {
		kill(-1, signal_number);
		_exit(0);
	}
	waitpid(inside, NULL, 0);
	_exit(0);
}
