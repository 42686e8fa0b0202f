/* PID 1 of a vm's guest. */
#ifndef PROA_INIT_H
#define PROA_INIT_H

_Noreturn void init_main(void);

#endif
