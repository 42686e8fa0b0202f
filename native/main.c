/* One program: the monitor on a host, init in a vm's guest and on a disk made of an image, a service in a
 * machine with a system of its own. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "init.h"
#include "proa.h"

static int print_verbs(void)
{
	for (size_t i = 0; i < verb_count; i++)
		printf("%s %d %d\n", verbs[i].name, verbs[i].minimum, verbs[i].maximum);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "monitor") == 0)
		return monitor_main(argc - 2, argv + 2);
	if (argc == 2 && strcmp(argv[1], "guest") == 0)
		guest_main();
	if (argc == 2 && strcmp(argv[1], "verbs") == 0)
		return print_verbs();
	if (getpid() == 1 && access(MACHINE, F_OK) == 0)
		machine_main();
	if (getpid() == 1)
		init_main();
	fputs("usage: proa-native monitor OPTION... | guest | verbs\n", stderr);
	return 2;
}
