/* What the builtins share: records of files, see docs/protocol.md. */
#ifndef PROA_BUILTIN_H
#define PROA_BUILTIN_H

#include <stdio.h>

#include "proa.h"

#define RECORD_HARDLINK 1u
#define RECORD_MISSING 2u
#define RECORD_XATTR 4u
#define RECORD_SPARSE 16u
#define PIECES_MAX 1024         /* of a sparse file */
#define RECORD_PROGRESS 8u

struct record {                 /* little-endian, as it travels */
	uint32_t path_length, link_length;
	uint32_t mode, uid, gid;
	uint32_t major, minor;
	uint32_t flags;
	uint64_t size, mtime_ns;
};

struct piece {                  /* of a sparse file */
	uint64_t offset, length;
};

/* Fills the lengths in and writes the record; its content follows.  0 or -1. */
int record_write(struct record *record, const char *path, const char *link);
/* The last record; `error` is an errno or 0.  Flushes; the program's exit code. */
int record_end(int error);
/* The record of what lstat(2) said, without names. */
struct stat;
struct record record_of(const struct stat *facts);

int builtin_changes(int argc, char **argv);
int builtin_tree_out(int argc, char **argv);
int builtin_tree_in(int argc, char **argv);
int builtin_stat(int argc, char **argv);
int builtin_procs(int argc, char **argv);

#endif
