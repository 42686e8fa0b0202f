/* PID 1: of a vm's guest (init.c), or of a disk made of an image (machine.c). */
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
