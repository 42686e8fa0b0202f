/* What the files that implement verbs share. */
#ifndef PROA_VERBS_H
#define PROA_VERBS_H

#include "proa.h"

/* ---- plan.c ------------------------------------------------------------------------------------ */

/* Names the argument a failure is about, sets errno and returns -1. */
int verb_fail(struct context *context, const char *argument, int error);
/* A whole decimal number within bounds; else errno EINVAL or ERANGE and the argument named. */
int verb_number(struct context *context, const char *text, long long minimum, long long maximum,
		long long *value);
int verb_mode(struct context *context, const char *text, mode_t *mode);
/* The sent descriptor that `fd:N` names; -1 and errno 0 when it is no such reference. */
int verb_fd(struct context *context, const char *text);

/* ---- path.c: paths of the place, never followed out of it --------------------------------------- */

/* openat2(2) from the root in force, refusing magic links (/proc/PID/fd and the like). */
int path_open(const char *path, int flags, mode_t mode);
/* Opens (O_PATH) a directory, making it and its parents where missing; `mode` is for the last. */
int path_directory(const char *path, mode_t mode);
/* Opens the directory a path lies in, made when missing; `name` is set to the path's last part. */
int path_parent(const char *path, const char **name);
/* Opens (O_PATH) what a path names; makes an empty directory or file of it where missing. */
int path_target(const char *path, bool directory);
/* Writes all bytes; 0 or -1. */
int write_all(int fd, const void *bytes, size_t length);
/* True when the descriptor lies on a file system with this magic number (linux/magic.h). */
bool on_filesystem(int fd, long magic);
/* Writes a file of the place's proc, reached past every mount that covers parts of it. */
int proc_write(const char *path, const char *content);
/* Closes without touching errno and returns `result`. */
int close_with(int fd, int result);

/* ---- verbs_mount.c: mounts by descriptor ---------------------------------------------------------- */

/* mount(2) on an open directory. */
int mount_on(int target, const char *kind, const char *source, unsigned long flags, const char *data);
/* A detached clone of what an open path shows; AT_RECURSIVE: with everything mounted below. */
int mount_clone(int path, unsigned flags);
/* Attaches a tree at an open path. */
int mount_move(int tree, int target);
/* Attaches a tree at a path, made when missing; never below the /proc of an image's root. */
int mount_attach(struct context *context, int tree, const char *path);
bool is_mount(int path);        /* the root of one */

/* ---- the environment (verbs_proc.c) -------------------------------------------------------------- */

int environment_set(struct context *context, char *setting);
const char *environment_get(const struct context *context, const char *key);

/* ---- verbs_proc.c: one program and no other --------------------------------------------------------- */

/* The number of the program's descriptor where execve is allowed once: the last one there may be. */
int exec_once(void);

/* ---- verbs ------------------------------------------------------------------------------------- */

#define VERB(name) int verb_##name(struct context *context, int argc, char **argv)
VERB(attach); VERB(builtin); VERB(caps); VERB(cgroup); VERB(clock); VERB(cover); VERB(cwd); VERB(detach);
VERB(dir);
VERB(entropy); VERB(env); VERB(exec); VERB(hostname); VERB(inherit); VERB(interface); VERB(mask);
VERB(landlock); VERB(module); VERB(mount); VERB(node); VERB(pin); VERB(nonewprivs); VERB(oom); VERB(readonly); VERB(rlimit); VERB(root);
VERB(route); VERB(seccomp); VERB(swap); VERB(symlink); VERB(sysctl); VERB(tty); VERB(umask);
VERB(user); VERB(write);

#endif
