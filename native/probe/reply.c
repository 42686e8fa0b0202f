/* HTTP/1.1 replies: a head of bounded size, a body that is counted and forgotten. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "probe.h"

void reply_begin(struct reply *reply)
{
	reply->state = REPLY_HEAD;
	reply->status = 0;
	reply->closes = false;
	reply->left = reply->body = 0;
	reply->used = 0;
}

/* A number at the beginning of a line, and nothing after it but a blank, `;` or the end. */
static bool number(const char *text, int base, uint64_t *value)
{
	char *end;
	if (!isxdigit((unsigned char)*text))
		return false;
	*value = strtoull(text, &end, base);
	return *value <= UINT64_MAX / 4 && (*end == '\0' || *end == ';' || isspace((unsigned char)*end));
}

static const char *value_of(const char *header, const char *name)
{
	size_t length = strlen(name);
	if (strncasecmp(header, name, length) != 0 || header[length] != ':')
		return NULL;
	for (header += length + 1; *header == ' ' || *header == '\t'; header++)
		continue;
	return header;
}

/* What the head, now whole, says of the body. */
static void read_head(struct reply *reply)
{
	char *line = reply->head, *next;
	bool length = false, chunked = false;
	if (strncmp(line, "HTTP/1.", 7) != 0 || !isdigit((unsigned char)line[7]) || line[8] != ' ' ||
	    !isdigit((unsigned char)line[9])) {
		reply->state = REPLY_BROKEN;
		return;
	}
	reply->status = atoi(line + 9);
	reply->closes = line[7] == '0';
	for (; (next = strstr(line, "\r\n")); line = next + 2) {
		*next = '\0';
		const char *value;
		if ((value = value_of(line, "Content-Length"))) {
			if (!number(value, 10, &reply->left)) {
				reply->state = REPLY_BROKEN;
				return;
			}
			length = true;
		} else if ((value = value_of(line, "Transfer-Encoding"))) {
			chunked = strncasecmp(value, "chunked", 7) == 0;
		} else if ((value = value_of(line, "Connection"))) {
			reply->closes = strncasecmp(value, "keep-alive", 10) != 0 &&
				(reply->closes || strncasecmp(value, "close", 5) == 0);
		}
	}
	bool bodiless = reply->status == 204 || reply->status == 304;
	reply->state = bodiless ? REPLY_DONE : chunked ? REPLY_CHUNK_SIZE : !length ? REPLY_TO_END :
		reply->left ? REPLY_LENGTH : REPLY_DONE;
	if (reply->status / 100 == 1)
		reply_begin(reply);
	reply->closes |= reply->state == REPLY_TO_END;
}

/* A line of the chunked body is whole, without its end. */
static void read_line(struct reply *reply)
{
	if (reply->state == REPLY_TRAILER)
		reply->state = reply->used == 0 ? REPLY_DONE : REPLY_TRAILER;
	else if (reply->state == REPLY_CHUNK_END)
		reply->state = reply->used == 0 ? REPLY_CHUNK_SIZE : REPLY_BROKEN;
	else if (!number(reply->head, 16, &reply->left))
		reply->state = REPLY_BROKEN;
	else
		reply->state = reply->left ? REPLY_CHUNK : REPLY_TRAILER;
	reply->used = 0;
}

static void take_byte(struct reply *reply, char byte)
{
	if (reply->used + 1 >= sizeof(reply->head)) {
		reply->state = REPLY_BROKEN;
		return;
	}
	reply->head[reply->used++] = byte;
	reply->head[reply->used] = '\0';
	if (byte != '\n')
		return;
	if (reply->state == REPLY_HEAD) {
		if (reply->used >= 4 && memcmp(reply->head + reply->used - 4, "\r\n\r\n", 4) == 0) {
			size_t kept = reply->used;
			reply->used = 0;
			reply->head[kept - 2] = '\0';
			read_head(reply);
		}
		return;
	}
	while (reply->used > 0 && (reply->head[reply->used - 1] == '\n' || reply->head[reply->used - 1] == '\r'))
		reply->head[--reply->used] = '\0';
	read_line(reply);
}

size_t reply_take(struct reply *reply, const char *bytes, size_t length)
{
	size_t taken = 0;
	while (taken < length && reply->state != REPLY_DONE && reply->state != REPLY_BROKEN) {
		bool counted = reply->state == REPLY_LENGTH || reply->state == REPLY_CHUNK;
		if (!counted && reply->state != REPLY_TO_END) {
			take_byte(reply, bytes[taken++]);
			continue;
		}
		size_t piece = length - taken;
		if (counted && piece > reply->left)
			piece = (size_t)reply->left;
		taken += piece;
		reply->body += piece;
		reply->left -= counted ? piece : 0;
		if (counted && reply->left == 0)
			reply->state = reply->state == REPLY_LENGTH ? REPLY_DONE : REPLY_CHUNK_END;
	}
	return taken;
}

void reply_ended(struct reply *reply)
{
	reply->state = reply->state == REPLY_TO_END ? REPLY_DONE : REPLY_BROKEN;
	reply->closes = true;
}
