/* PID 1 of a vm's guest (init.c) or of a disk made of an image (machine.c), and no PID 1 at all: a service
 * of a machine with a system of its own (guest.c). */
#ifndef PROA_INIT_H
#define PROA_INIT_H

#include <stdbool.h>
#include <stdint.h>

#define MACHINE "/machine"      /* its presence in the first root makes init the latter */

_Noreturn void init_main(void);
_Noreturn void machine_main(void);

/* ---- init.c: what both do ---------------------------------------------------------------------- */

void init_kernel(void);         /* leaves the first root, mounts the kernel's trees, loads modules */
_Noreturn void init_power_off(void);
/* One line on the console, then the end: a machine without init is of no use. */
_Noreturn void init_fatal(const char *what, const char *argument);
/* The port to the host, open and blocking, or -1 while there is none of its name. */
int init_find_port(void);

/* ---- guest.c: beside the init of a machine's own system ------------------------------------------ */

_Noreturn void guest_main(void);

/* ---- dhcp.c ------------------------------------------------------------------------------------ */

struct lease {
	char interface[16];     /* empty: there is none */
	char address[20];       /* a.b.c.d/prefix */
	char gateway[16];       /* empty: none given */
	char servers[3][16];    /* of names */
	uint32_t seconds;       /* how long it is good for */
};

/* Asks for an address of the first Ethernet interface; false when nobody answers in some seconds. */
bool dhcp_ask(struct lease *lease);

#endif
