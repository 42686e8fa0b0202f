/* Answers: one line of JSON each. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "probe.h"

#define LINE_MAX_BYTES 60000
#define ROOM_FOR_END 16

static char line[LINE_MAX_BYTES + ROOM_FOR_END];
static size_t used;

static void put(const char *bytes, size_t length)
{
	if (length > LINE_MAX_BYTES - used)
		length = LINE_MAX_BYTES - used;
	memcpy(line + used, bytes, length);
	used += length;
}

static void put_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void put_format(const char *format, ...)
{
	char text[64];
	va_list values;
	va_start(values, format);
	int length = vsnprintf(text, sizeof(text), format, values);
	va_end(values);
	if (length > 0)
		put(text, (size_t)length < sizeof(text) ? (size_t)length : sizeof(text) - 1);
}

/* The length of the UTF-8 character that begins here, 0 when none does. */
static size_t character(const unsigned char *at, size_t left)
{
	size_t length = *at < 0x80 ? 1 : *at >= 0xc2 && *at < 0xe0 ? 2 : *at >= 0xe0 && *at < 0xf0 ? 3 :
		*at >= 0xf0 && *at < 0xf5 ? 4 : 0;
	if (length > left)
		return 0;
	for (size_t i = 1; i < length; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	bool long_form = (*at == 0xe0 && at[1] < 0xa0) || (*at == 0xf0 && at[1] < 0x90);
	bool no_scalar = (*at == 0xed && at[1] >= 0xa0) || (*at == 0xf4 && at[1] >= 0x90);
	return long_form || no_scalar ? 0 : length;
}

static void put_string(const char *value, size_t length)
{
	const unsigned char *at = (const unsigned char *)value, *end = at + length;
	put("\"", 1);
	while (at < end && used + 16 < LINE_MAX_BYTES) {
		size_t size = character(at, (size_t)(end - at));
		if (size == 0)
			put("\\ufffd", 6);
		else if (*at == '"' || *at == '\\' || *at < 0x20 || *at == 0x7f)
			put_format("\\u%04x", *at);
		else
			put((const char *)at, size);
		at += size ? size : 1;
	}
	put("\"", 1);
}

/* Whether there is room for one more field; a line that is full leaves the rest out, whole. */
static bool put_key(const char *key)
{
	if (used + strlen(key) + 128 > LINE_MAX_BYTES)
		return false;
	put(used == 1 ? "" : ",", used == 1 ? 0 : 1);
	put_string(key, strlen(key));
	put(":", 1);
	return true;
}

void answer_begin(const char *probe)
{
	used = 0;
	put("{", 1);
	answer_text("probe", probe);
}

void answer_bytes(const char *key, const char *value, size_t length)
{
	if (put_key(key))
		put_string(value, length);
}

void answer_text(const char *key, const char *value)
{
	answer_bytes(key, value, strlen(value));
}

void answer_count(const char *key, uint64_t value)
{
	if (put_key(key))
		put_format("%" PRIu64, value);
}

void answer_number(const char *key, double value)
{
	if (!put_key(key))
		return;
	if (isfinite(value))
		put_format("%.9g", value);
	else
		put("null", 4);
}

void answer_flag(const char *key, bool value)
{
	if (put_key(key))
		put(value ? "true" : "false", value ? 4 : 5);
}

static enum { NO_LIST, EMPTY, FILLED } list;

void answer_list_begin(const char *key)
{
	if (!put_key(key))
		return;
	put("[", 1);
	list = EMPTY;
}

void answer_list_add(uint64_t value)
{
	if (list == NO_LIST || used + 64 > LINE_MAX_BYTES)
		return;
	put_format(list == FILLED ? ",%" PRIu64 : "%" PRIu64, value);
	list = FILLED;
}

void answer_list_end(void)
{
	if (list != NO_LIST)
		put("]", 1);
	list = NO_LIST;
}

void answer_end(void)
{
	memcpy(line + used, "}\n", 2);
	size_t length = used + 2;
	for (size_t done = 0; done < length; ) {
		ssize_t written = write(STDOUT_FILENO, line + done, length - done);
		if (written < 0 && errno != EINTR)
			_exit(1);
		done += written > 0 ? (size_t)written : 0;
	}
}

void answer_error(const char *probe, const char *code, const char *detail, int error)
{
	answer_begin(probe);
	answer_text("error", code);
	answer_text("detail", detail);
	if (error != 0)
		answer_text("errno", strerrorname_np(error) ? strerrorname_np(error) : "unknown");
	answer_end();
}
