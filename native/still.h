/* still.c: init stands still for a copy of its machine, and is taken over by a fresh monitor. */
#ifndef PROA_STILL_H
#define PROA_STILL_H

#include "agent.h"

struct still {
	struct agent *agent;
	struct channel *channel;
	bool standing;          /* between QUIESCE and RESUME or ADOPT: nothing but the channel is served */
};

/* QUIESCE ADOPT RESUME; false: the frame is another. */
bool still_request(struct still *still, const struct frame *frame);

#endif
