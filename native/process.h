/* What agent.c, process.c and place.c share. */
#ifndef PROA_PROCESS_H
#define PROA_PROCESS_H

#include "agent.h"

struct request {
	const struct frame *frame;
	char *payload;
	const int *fds;
	int fd_count;
};

/* ---- process.c: the parent's side of one process ----------------------------------------------------- */

struct process {
	struct process *next;
	struct agent *agent;
	uint32_t id;
	pid_t pid;                      /* 0 while a joining child has not told it */
	bool placing;                   /* PLACE is not answered yet */
	bool launching;                 /* LAUNCH or EXEC is not answered yet */
	uint8_t request;                /* the one `launching` stands for */
	bool tty;
	bool closing;                   /* stdin ends when `pending` is written */
	uint16_t size[2];               /* rows and columns asked for before the terminal existed */
	uint32_t unacknowledged;        /* bytes of OUTPUT */
	uint64_t oom_kills;             /* of the guest when it was launched */
	struct watch control;           /* reports of the child until it executes */
	struct watch input;
	struct watch output[2];
	struct queue pending;           /* STDIN the process has not read */
};

struct process *process_new(struct agent *agent, uint32_t id);
struct process *process_find(struct agent *agent, uint32_t id);
/* Makes pipes as the flags of a LAUNCH or EXEC ask; `child` gets the descriptors for 0, 1, 2. */
bool process_pipes(struct process *process, uint8_t flags, int child[3]);
void process_failed(struct process *process, const struct failure *failure);    /* answers; frees */
void process_exited(struct process *process, int status);                       /* drains, EXIT; frees */
void process_reports(struct process *process);          /* reads what the child has told so far */
bool process_write(struct process *process, const void *bytes, uint32_t length);
void process_close_input(struct process *process);
void process_credit(struct process *process, uint32_t bytes);
void process_resize(struct process *process, const uint16_t size[2]);
void answer_failure(struct agent *agent, uint32_t id, uint8_t request, const struct failure *failure);
void answer(struct agent *agent, uint8_t type, uint32_t id, uint8_t request);

/* ---- place.c: making children, and their side ---------------------------------------------------------- */

/* What a child reports over its control socket: one byte, with a terminal's master or not, or a
 * struct failure. */
enum { REPORT_PLACED = 'P', REPORT_JOINED = 'J' };

/* These return the child's pid, or -1 with `failure` filled. */
pid_t place_start(struct agent *agent, const struct request *request, const int control[2], struct failure *failure);
pid_t exec_start(const struct agent *agent, const struct request *request, int control, const int stdio[3]);
/* Hands a LAUNCH to the waiting child. */
bool place_launch(int control, const struct request *request, const int stdio[3]);
void place_signal_all(const struct place *place, int signal);
void place_close(struct place *place);
void failure_set(struct failure *failure, uint32_t step, const char *verb, const char *argument);

#endif
