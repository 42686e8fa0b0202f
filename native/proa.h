/* Shared declarations of the native program: frames, plans, the agent core.
 * The protocol is described in docs/protocol.md; the verbs in src/proa/plan.py. */
#ifndef PROA_H
#define PROA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PLAN_MAX (4u << 20)     /* bytes of one encoded plan */
#define FRAME_GUEST_MAX 65536u  /* longest payload a guest may send */
#define CREDIT_WINDOW 262144u   /* unacknowledged bytes per stream direction */
#define CHUNK_MAX 32768u        /* bytes of one OUTPUT or STDIN frame */
#define INHERIT_FIRST 100       /* where `inherit` puts the first descriptor */
#define FDS_MAX 64              /* descriptors sent with one request */

enum frame_type {
	F_SETUP = 1, F_PLACE, F_LAUNCH, F_EXEC, F_ATTACH, F_SIGNAL, F_RESIZE, F_STDIN,
	F_CLOSE_STDIN, F_CREDIT, F_STATE, F_KILL, F_GET_FD, F_QUIT, F_HOLD,
	F_QUIESCE, F_ADOPT, F_RESUME,
	F_DONE = 64, F_PLACED, F_STARTED, F_FAILED, F_OUTPUT, F_EXIT, F_STATUS, F_HELLO,
};

enum frame_flag {
	LAUNCH_STDIN = 1, LAUNCH_TTY = 2, LAUNCH_LOG = 4, LAUNCH_JOIN = 8, LAUNCH_STAY = 16, LAUNCH_BESIDE = 32,
	ATTACH_IN = 1, ATTACH_OUT = 2, ATTACH_ERR = 4, ATTACH_MUX = 8, ATTACH_CLOSE = 16, ATTACH_HUP = 32,
	SIGNAL_ALL = 1,
	HOLD_LONGEST = 1,
	QUIESCE_SYNC = 1,
	OUTPUT_OUT = 1, OUTPUT_ERR = 2,
	EXIT_OOM = 1,
	FRAME_LOCAL = 0x80,
};

struct frame {
	uint32_t length;
	uint8_t type;
	uint8_t flags;
	uint16_t argument;
	uint32_t id;
};

/* ---- plan.c: decoding and running ---------------------------------------------------------- */

/* What a running plan knows and changes. Lives in the child that executes the steps. */
struct context {
	const int *fds;         /* descriptors sent with the request: `fd:N` */
	int fd_count;
	int tty_socket;         /* where the `tty` verb sends the terminal's master (SCM_RIGHTS), or -1 */
	char **environment;     /* NULL-terminated; `env` appends */
	size_t environment_count;
	bool guest;             /* true in a vm: nodes may be made, pivot may fail */
	bool has_root;          /* `root` has run: paths are the image's */
	int inherited;          /* descriptors from INHERIT_FIRST on that `exec` leaves open */
	bool once;              /* `exec` must be the last one ever: see verbs_proc.c */
	const char *failed;     /* set by a verb: the argument to report */
};

struct step {
	const char *verb;
	int argc;
	char **argv;            /* pointers into the plan's buffer */
};

struct failure {
	uint32_t step;
	uint32_t error;         /* errno */
	char verb[16];
	char argument[256];
};

/* Calls `each` for every step of an encoded plan; false and errno EINVAL when malformed. */
struct plan {
	char *cursor;
	char *end;
	uint32_t index;
	char *argv[4096 + 1];   /* of the current step; `exec` with more arguments is E2BIG */
};
void plan_open(struct plan *plan, char *bytes, size_t length);
/* 1: a step was read; 0: the end; -1: malformed, errno set. */
int plan_next(struct plan *plan, struct step *step);

/* Runs the rest of a plan. Returns only on failure (fills `failure`), or at the plan's end when
 * it has no `exec`/`builtin` (returns true). */
bool plan_run(struct plan *plan, struct context *context, struct failure *failure);

/* Verb functions return 0, or -1 with errno. The table is sorted as `proa-native verbs` prints it. */
struct verb {
	const char *name;
	int minimum, maximum;   /* argument count; maximum -1: any */
	int (*run)(struct context *context, int argc, char **argv);
};
extern const struct verb verbs[];
extern const size_t verb_count;

extern bool place_pinned;       /* by `pin`: what the place wrote to its disk is of no use */

/* ns and idmap are read by the parent before it clones: see place.c. */
int namespaces_flags(int argc, char **argv);   /* CLONE_NEW* bits or -1 */

/* ---- builtins: run in place of an image's program, return the exit code ----------------------- */
int builtin_run(int argc, char **argv);

/* ---- the monitor ---------------------------------------------------------------------------- */
int monitor_main(int argc, char **argv);       /* monitor.c; the arguments after `monitor` */

#endif
