/* The agent core: a table of processes that executes plans in children, feeds and drains them and
 * reaps them.  The monitor drives one on the host, init drives one in a vm's guest:
 *
 *     loop_open();
 *     agent_init(&agent, emit, guest);
 *     channel_open(&channel, port);            // its `received` calls agent_request
 *     for (;;) loop_wait(-1);
 */
#ifndef PROA_AGENT_H
#define PROA_AGENT_H

#include "io.h"

#define HULL 0u                 /* ids of processes with a meaning */
#define MAIN 1u
#define DRAIN_MAX (1u << 20)    /* bytes of each stream read after a process has exited, above its credit */
#define CGROUPS_MAX 16          /* `cgroup` steps at the head of a PLACE plan */

struct agent;
struct process;                 /* process.h */

#define FAILURE_MAX (sizeof(struct failure) + 2)        /* payload of FAILED */
uint32_t failure_encode(const struct failure *failure, char payload[FAILURE_MAX]);

struct exit_report {            /* payload of EXIT */
	uint32_t code, signal;
	uint64_t finished_ns;
};

/* An answer or event for the one that asks: DONE PLACED STARTED FAILED OUTPUT EXIT CREDIT. */
typedef void agent_emit(struct agent *agent, const struct frame *frame, const void *payload);

/* What all children of a place share. */
struct place {
	pid_t pid;                      /* its first process; 0: none */
	int pidfd;
	int namespaces;                 /* CLONE_NEW* it was made with */
	uint32_t base;                  /* host id of its root */
	int cgroups[CGROUPS_MAX];       /* open cgroup.procs files */
	int cgroup_count;
};

struct agent {
	agent_emit *emit;
	bool guest;                     /* may SETUP and EXEC without JOIN */
	struct watch signals;           /* SIGCHLD; reaps every child, also those it does not know */
	struct process *processes;
	struct place place;
};

/* Blocks SIGCHLD, ignores SIGPIPE, makes the process undumpable. */
void agent_init(struct agent *agent, agent_emit *emit, bool guest);

/* SETUP PLACE LAUNCH EXEC SIGNAL RESIZE STDIN CLOSE_STDIN CREDIT; others are ignored.  `payload` is
 * changed (plans are decoded in place); descriptors are used, never kept: the caller closes them. */
void agent_request(struct agent *agent, const struct frame *frame, char *payload, const int *fds, int fd_count);

/* SIGKILL to every process of the table; their EXITs follow. */
void agent_kill(struct agent *agent);

/* ---- what a child finds when its plan runs ----------------------------------------------------------
 *
 * - It is a session leader, every signal is at its default and unblocked, umask is 022.
 * - Descriptors: 0 1 2 are its stdio (/dev/null in PLACE), the sent ones (context.fds) and
 *   context.tty_socket are close-on-exec; nothing else is open.
 * - In a place: the namespaces are entered, it is uid and gid 0 of them without groups, mounts are
 *   private, it is undumpable (so /proc/self is not its own: see the `oom` verb) and dies with its parent.
 * - A place on a host has at least user, pid and mount namespaces; another is refused.
 * - Leading `ns`, `idmap` and `cgroup` steps of a PLACE are done already; plan_run gets the rest.
 * - context.environment is NULL with count 0.
 * - context.tty_socket is SOCK_SEQPACKET: `tty` sends one byte with the master in SCM_RIGHTS.
 * - `exec` tells the parent STARTED by execve closing that socket; `builtin` by closing it itself:
 *   close_range(3, ~0U, 0) before its work.
 */

#endif
