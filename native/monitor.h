/* What monitor.c, events.c, stream.c and record.c share. */
#ifndef PROA_MONITOR_H
#define PROA_MONITOR_H

#include "agent.h"

/* ---- monitor.c: the instance -------------------------------------------------------------------------- */

#define KEPT_MAX 64

struct engine {
	struct channel channel;
	struct engine *next;
};

struct descriptors {
	int fds[KEPT_MAX];
	int count;
};

struct monitor {
	struct agent agent;
	struct channel guest;           /* watch.fd -1: a container */
	struct watch listener;
	struct engine *engines;
	struct descriptors keep, hold;
	bool has_guest;
	bool greeted;                   /* the guest has said HELLO */
	bool met;                       /* an engine has connected */
	bool launched;                  /* the main process was, or is being */
	bool stay;                      /* the main process's end is not the end: its files are still wanted */
	bool ended;                     /* the main process is over: flush and go */
	bool killed;
	const char *reason;             /* why the vm died */
};
extern struct monitor monitor;

void tell(struct engine *engine, const struct frame *frame, const void *payload);
void tell_all(const struct frame *frame, const void *payload);

/* ---- events.c ------------------------------------------------------------------------------------------ */

void own_event(struct agent *agent, const struct frame *frame, const void *payload);
void guest_event(struct channel *channel, const struct frame *frame, char *payload, int *fds, int fd_count);
void guest_lost(struct channel *channel);       /* broke the protocol, or is gone */
void guest_died(void);                          /* and its processes with it */
bool main_is_local(void);
void monitor_end(void);                         /* kills what is left; the loop ends when all is told */

/* ---- quiet.c ----------------------------------------------------------------------------------------- */

int quiet_request(struct engine *engine, const struct frame *frame);    /* QUIESCE ADOPT RESUME; 0 or an errno */
bool quiet_answer(const struct frame *frame, const char *payload);      /* of the guest; false: it is none */
void quiet_lost(const struct engine *engine);
void guest_send(const struct frame *frame, const char *payload);

/* ---- stream.c: a process as its clients see it ----------------------------------------------------- */

enum stream_state { STREAM_NEW, STREAM_WAITING, STREAM_RUNNING, STREAM_EXITED };     /* as in STATUS */

struct stream {
	struct stream *next;
	uint32_t id;
	enum stream_state state;
	bool local;                     /* the process is of the monitor's own core */
	bool setting_up;                /* SETUP is not answered yet */
	uint32_t asked;                 /* how many of PLACE, LAUNCH, EXEC are not */
	bool logged;
	bool reported;                  /* an engine knows of its exit */
	struct engine *asker;           /* who is told the answers */
	uint32_t pid;
	struct exit_report exit;
	uint32_t received;              /* bytes of OUTPUT not yet credited */
	uint32_t sent;                  /* bytes of STDIN not yet credited to us */
	struct sink *sinks;
};

struct stream *stream_find(uint32_t id);
struct stream *stream_open(uint32_t id);        /* found, or made; NULL: no memory */
struct stream *stream_first(void);
bool stream_attach(struct stream *stream, int fd, uint8_t flags, const char *keys, uint32_t key_count);
/* False: more than the credit allows. */
bool stream_output(struct stream *stream, uint8_t flags, const char *bytes, uint32_t length);
void stream_credit(struct stream *stream, uint32_t bytes);
void stream_started(struct stream *stream);
void stream_ended(struct stream *stream);       /* clients get the rest, then end of file */
void stream_abandon(struct stream *stream);     /* clients are left to the engine */
void stream_release(struct stream *stream);     /* frees it when nothing needs it any more */
bool streams_flushed(void);                     /* no client waits for a byte */

/* monitor.c: towards the process's core. */
void stream_request(struct stream *stream, uint8_t type, uint16_t argument, const void *bytes, uint32_t length);

/* ---- record.c: the instance's directory --------------------------------------------------------------- */

void record_open(int directory);        /* makes room for the exit record, so that a full disk cannot refuse it */
void record_exit(const struct exit_report *exit, bool oom, const char *error);
void record_drop(void);                 /* there will be no exit record */
void record_log(uint8_t stream, const char *bytes, uint32_t length);
void record_hull(const char *bytes, uint32_t length);

#endif
