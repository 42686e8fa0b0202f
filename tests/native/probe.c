/* The guest test program: one static binary that shows what a process sees of its place.
 *
 *     exit N                  end with N
 *     signal N                end by signal N
 *     echo WORD...            words to stdout
 *     stderr WORD...          words to stderr
 *     both OUT ERR            OUT to stdout, ERR to stderr
 *     cat                     stdin to stdout, until its end; then "end"
 *     env                     the environment, one setting a line
 *     cwd | hostname | pid | uname | machine-id
 *     id                      uid gid groups: "1000 1000 1000,27"
 *     umask                   octal
 *     limit NAME              nofile, nproc or core: "soft hard"
 *     tty                     for 0, 1, 2: "tty ROWS COLUMNS" or "no"
 *     winch                   "ready", then "ROWS COLUMNS" at the first resize
 *     trap SIGNAL CODE        "ready", then the signal's number, then end with CODE
 *     ignore SIGNAL           "ready", then sleep for ever without caring
 *     sleep SECONDS
 *     spin                    use a processor for ever
 *     fork-zombies N          N orphans end; prints how many stayed zombies of pid 1
 *     children N              N sleeping children: "ready", then sleep
 *     write PATH DATA | read PATH | unlink PATH | mkdir PATH
 *     stat PATH               "type mode uid gid size", type as in ls -l
 *     ls PATH                 names, sorted
 *     mounts                  "target type options" of /proc/self/mountinfo
 *     caps                    CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp of /proc/self/status
 *     seccomp CALL            try a call (see `calls` below): "0" or the errno's name
 *     alloc MB                touch that much memory: "ok"
 *     cpu MS                  use that much processor time; prints the milliseconds it took
 *     http PORT BODY          answer every connection with BODY; "ready" first
 *     connect HOST PORT       what a server there answers to a GET (IPv4 address)
 *     random N                N random bytes in hex
 *     interfaces              "name flags mac address/mask mtu"
 *     fds                     open descriptors, "number target", but that of the listing
 *     time                    CLOCK_REALTIME in nanoseconds
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return 1;
}

/* Prints at once: whoever watches waits for it. */
static void say(const char *text)
{
	puts(text);
	fflush(stdout);
}

static _Noreturn void for_ever(void)
{
	for (;;)
		pause();
}

/* ---- ends and words ---------------------------------------------------------------------------- */

static int run_exit(char **argv)
{
	return atoi(argv[0]);
}

static int run_signal(char **argv)
{
	signal(atoi(argv[0]), SIG_DFL);
	kill(getpid(), atoi(argv[0]));
	return 0;               /* pid 1 is immune to its own signals */
}

static void print_words(FILE *stream, char **words)
{
	for (; *words; words++)
		fprintf(stream, "%s%s", *words, words[1] ? " " : "");
	fputc('\n', stream);
}

static int run_echo(char **argv)
{
	print_words(stdout, argv);
	return 0;
}

static int run_stderr(char **argv)
{
	print_words(stderr, argv);
	return 0;
}

static int run_both(char **argv)
{
	say(argv[0]);
	fprintf(stderr, "%s\n", argv[1]);
	return 0;
}

static int copy(int from, int to)
{
	char bytes[65536];
	ssize_t count;
	while ((count = read(from, bytes, sizeof bytes)) > 0)
		for (ssize_t done = 0, n; done < count; done += n)
			if ((n = write(to, bytes + done, (size_t)(count - done))) < 0)
				return -1;
	return (int)count;
}

static int run_cat(char **argv)
{
	(void)argv;
	if (copy(0, 1) < 0)
		return fail("stdin");
	say("end");
	return 0;
}

/* ---- identity ---------------------------------------------------------------------------------- */

static int run_env(char **argv)
{
	(void)argv;
	for (char **setting = environ; *setting; setting++)
		puts(*setting);
	return 0;
}

static int run_cwd(char **argv)
{
	char name[4096];
	(void)argv;
	if (!getcwd(name, sizeof name))
		return fail("getcwd");
	say(name);
	return 0;
}

static int run_id(char **argv)
{
	gid_t groups[1024];
	(void)argv;
	int count = getgroups(1024, groups);
	printf("%u %u ", getuid(), getgid());
	for (int i = 0; i < count; i++)
		printf("%s%u", i ? "," : "", groups[i]);
	putchar('\n');
	return 0;
}

static int run_uname(char **argv)
{
	struct utsname names;
	(void)argv;
	if (uname(&names) < 0)
		return fail("uname");
	printf("%s %s %s\n", names.sysname, names.release, names.machine);
	return 0;
}

static int run_hostname(char **argv)
{
	struct utsname names;
	(void)argv;
	if (uname(&names) < 0)
		return fail("uname");
	say(names.nodename);
	return 0;
}

static int run_pid(char **argv)
{
	(void)argv;
	printf("%d\n", getpid());
	return 0;
}

static int run_umask(char **argv)
{
	(void)argv;
	printf("%04o\n", umask(0));
	return 0;
}

static int run_limit(char **argv)
{
	struct rlimit limit;
	int resource = strcmp(argv[0], "nofile") == 0 ? RLIMIT_NOFILE
		: strcmp(argv[0], "nproc") == 0 ? RLIMIT_NPROC : RLIMIT_CORE;
	if (getrlimit((__rlimit_resource_t)resource, &limit) < 0)
		return fail(argv[0]);
	printf("%lld %lld\n", (long long)limit.rlim_cur, (long long)limit.rlim_max);
	return 0;
}

static int run_time(char **argv)
{
	struct timespec now;
	(void)argv;
	clock_gettime(CLOCK_REALTIME, &now);
	printf("%lld\n", (long long)now.tv_sec * 1000000000 + now.tv_nsec);
	return 0;
}

/* ---- terminals and signals --------------------------------------------------------------------- */

static int run_tty(char **argv)
{
	struct winsize size;
	(void)argv;
	for (int fd = 0; fd < 3; fd++) {
		if (ioctl(fd, TIOCGWINSZ, &size) == 0)
			printf("tty %u %u\n", size.ws_row, size.ws_col);
		else
			puts("no");
	}
	return 0;
}

/* Blocks the signal, says "ready" and waits for it. */
static int await(int number)
{
	sigset_t signals;
	int got = 0;
	sigemptyset(&signals);
	sigaddset(&signals, number);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	say("ready");
	sigwait(&signals, &got);
	return got;
}

static int run_winch(char **argv)
{
	struct winsize size = { 0 };
	(void)argv;
	await(SIGWINCH);
	ioctl(0, TIOCGWINSZ, &size);
	printf("%u %u\n", size.ws_row, size.ws_col);
	return 0;
}

static int run_trap(char **argv)
{
	printf("%d\n", await(atoi(argv[0])));
	return atoi(argv[1]);
}

static int run_ignore(char **argv)
{
	signal(atoi(argv[0]), SIG_IGN);
	say("ready");
	for_ever();
}

/* ---- processes --------------------------------------------------------------------------------- */

static int run_sleep(char **argv)
{
	double seconds = atof(argv[0]);
	struct timespec time = { .tv_sec = (time_t)seconds };
	time.tv_nsec = (long)((seconds - (double)time.tv_sec) * 1e9);
	nanosleep(&time, NULL);
	return 0;
}

static int run_spin(char **argv)
{
	for (volatile unsigned n = 0;; n++)
		if (!argv)
			return 0;
}

static int count_zombies(void)
{
	char path[300], text[512];
	int zombies = 0;
	DIR *proc = opendir("/proc");
	for (struct dirent *entry; proc && (entry = readdir(proc));) {
		snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
		FILE *file = entry->d_name[0] >= '1' && entry->d_name[0] <= '9' ? fopen(path, "r") : NULL;
		if (!file)
			continue;
		char *end = fgets(text, sizeof text, file) ? strrchr(text, ')') : NULL;
		zombies += end && end[2] == 'Z';
		fclose(file);
	}
	if (proc)
		closedir(proc);
	return zombies;
}

static int run_fork_zombies(char **argv)
{
	for (int i = atoi(argv[0]); i > 0; i--) {
		pid_t parent = fork();
		if (parent == 0) {
			if (fork() == 0)
				usleep(1000);
			_exit(0);
		}
		waitpid(parent, NULL, 0);
	}
	usleep(100000);
	printf("%d\n", count_zombies());
	return 0;
}

static int run_children(char **argv)
{
	for (int i = atoi(argv[0]); i > 0; i--) {
		pid_t child = fork();
		if (child < 0)
			return fail("fork");
		if (child == 0)
			for_ever();
	}
	say("ready");
	for_ever();
}

/* ---- files ------------------------------------------------------------------------------------- */

static int run_write(char **argv)
{
	int file = open(argv[0], O_WRONLY | O_CREAT | O_TRUNC, 0644);
	size_t length = strlen(argv[1]);
	if (file < 0 || write(file, argv[1], length) != (ssize_t)length || close(file) < 0)
		return fail(argv[0]);
	return 0;
}

static int run_read(char **argv)
{
	int file = open(argv[0], O_RDONLY);
	return file < 0 || copy(file, 1) < 0 ? fail(argv[0]) : 0;
}

static int run_unlink(char **argv)
{
	return unlink(argv[0]) < 0 ? fail(argv[0]) : 0;
}

static int run_mkdir(char **argv)
{
	return mkdir(argv[0], 0755) < 0 ? fail(argv[0]) : 0;
}

/* The value in hexadecimal. */
static int run_setxattr(char **argv)
{
	char value[256];
	size_t length = strlen(argv[2]) / 2;
	for (size_t i = 0; i < length && i < sizeof value; i++) {
		char digits[3] = { argv[2][2 * i], argv[2][2 * i + 1] };
		value[i] = (char)strtoul(digits, NULL, 16);
	}
	return setxattr(argv[0], argv[1], value, length, 0) < 0 ? fail(argv[1]) : 0;
}

static int run_machine_id(char **argv)
{
	static char path[] = "/etc/machine-id";
	char *arguments[] = { path, NULL };
	(void)argv;
	return run_read(arguments);
}

static int run_stat(char **argv)
{
	struct stat facts;
	static const char types[] = "?pc?d?b?-?l?s???";
	if (lstat(argv[0], &facts) < 0)
		return fail(argv[0]);
	printf("%c %04o %u %u %lld\n", types[facts.st_mode >> 12 & 15], facts.st_mode & 07777, facts.st_uid,
	       facts.st_gid, (long long)facts.st_size);
	return 0;
}

static int run_ls(char **argv)
{
	struct dirent **entries;
	int count = scandir(argv[0], &entries, NULL, alphasort);
	if (count < 0)
		return fail(argv[0]);
	for (int i = 0; i < count; i++)
		if (strcmp(entries[i]->d_name, ".") != 0 && strcmp(entries[i]->d_name, "..") != 0)
			puts(entries[i]->d_name);
	return 0;
}

static int run_mounts(char **argv)
{
	char line[8192], target[4096], options[512], kind[64];
	(void)argv;
	FILE *file = fopen("/proc/self/mountinfo", "r");
	if (!file)
		return fail("mountinfo");
	while (fgets(line, sizeof line, file)) {
		const char *tail = strstr(line, " - ");
		if (tail && sscanf(line, "%*s %*s %*s %*s %4095s %511s", target, options) == 2
		    && sscanf(tail, " - %63s", kind) == 1)
			printf("%s %s %s\n", target, kind, options);
	}
	fclose(file);
	return 0;
}

static int run_fds(char **argv)
{
	char target[4096];
	(void)argv;
	DIR *listing = opendir("/proc/self/fd");
	if (!listing)
		return fail("/proc/self/fd");
	for (struct dirent *entry; (entry = readdir(listing));) {
		ssize_t length = readlinkat(dirfd(listing), entry->d_name, target, sizeof target - 1);
		if (length > 0 && atoi(entry->d_name) != dirfd(listing))
			printf("%s %.*s\n", entry->d_name, (int)length, target);
	}
	closedir(listing);
	return 0;
}

/* ---- privileges -------------------------------------------------------------------------------- */

static int run_caps(char **argv)
{
	char line[256];
	(void)argv;
	FILE *file = fopen("/proc/self/status", "r");
	if (!file)
		return fail("/proc/self/status");
	while (fgets(line, sizeof line, file))
		if (strncmp(line, "Cap", 3) == 0 || strncmp(line, "NoNewPrivs:", 11) == 0
		    || strncmp(line, "Seccomp:", 8) == 0)
			fputs(line, stdout);
	fclose(file);
	return 0;
}

static const struct call {
	const char *name;
	long number, arguments[5];
} calls[] = {
	{ "getpid", SYS_getpid, { 0 } },
	{ "mount", SYS_mount, { 0 } },
	{ "umount2", SYS_umount2, { (long)"/nowhere", 0 } },
	{ "pivot_root", SYS_pivot_root, { 0 } },
	{ "unshare", SYS_unshare, { CLONE_NEWUSER } },
	{ "setns", SYS_setns, { -1, 0 } },
	{ "clone-newuser", SYS_clone, { CLONE_NEWUSER | SIGCHLD } },
	{ "clone3", SYS_clone3, { 0 } },
	{ "bpf", SYS_bpf, { -1, 0, 0 } },
	{ "keyctl", SYS_keyctl, { KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0 } },
	{ "add_key", SYS_add_key, { 0 } },
	{ "ptrace", SYS_ptrace, { PTRACE_TRACEME } },
	{ "userfaultfd", SYS_userfaultfd, { 0 } },
	{ "io_uring_setup", SYS_io_uring_setup, { 1, 0 } },
	{ "fsopen", SYS_fsopen, { (long)"tmpfs", 0 } },
	{ "open_tree", SYS_open_tree, { -100, (long)"/", 1 } },
	{ "reboot", SYS_reboot, { 0 } },
	{ "swapon", SYS_swapon, { 0 } },
	{ "init_module", SYS_init_module, { 0 } },
	{ "kexec_load", SYS_kexec_load, { 0 } },
	{ "perf_event_open", SYS_perf_event_open, { 0 } },
	{ "settimeofday", SYS_settimeofday, { 0 } },
	{ "sethostname", SYS_sethostname, { (long)"x", 1 } },
	{ "open_by_handle_at", SYS_open_by_handle_at, { 0 } },
	{ "socket-inet", SYS_socket, { AF_INET, SOCK_STREAM, 0 } },
	{ "socket-alg", SYS_socket, { AF_ALG, SOCK_SEQPACKET, 0 } },
	{ "socket-vsock", SYS_socket, { AF_VSOCK, SOCK_STREAM, 0 } },
	{ "personality-linux", SYS_personality, { PER_LINUX } },
	{ "personality-norandom", SYS_personality, { ADDR_NO_RANDOMIZE } },
	{ "personality-query", SYS_personality, { 0xffffffff } },
	{ "future", 4095, { 0 } },
};

static int run_seccomp(char **argv)
{
	for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
		const struct call *call = &calls[i];
		if (strcmp(call->name, argv[0]) != 0)
			continue;
		const long *a = call->arguments;
		long result = syscall(call->number, a[0], a[1], a[2], a[3], a[4]);
		if (result == 0 && strncmp(call->name, "clone", 5) == 0 && getpid() != 1)
			_exit(0);
		say(result < 0 ? strerrorname_np(errno) : "0");
		return 0;
	}
	fprintf(stderr, "no call '%s'\n", argv[0]);
	return 2;
}

/* ---- resources --------------------------------------------------------------------------------- */

static int run_alloc(char **argv)
{
	size_t size = (size_t)atoi(argv[0]) << 20;
	char *memory = malloc(size);
	if (!memory)
		return fail("malloc");
	for (size_t i = 0; i < size; i += 4096)
		((volatile char *)memory)[i] = 1;
	say("ok");
	return 0;
}

static long milliseconds(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (long)(now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

static int run_cpu(char **argv)
{
	long start = milliseconds(CLOCK_MONOTONIC), wanted = atol(argv[0]);
	while (milliseconds(CLOCK_PROCESS_CPUTIME_ID) < wanted)
		continue;
	printf("%ld\n", milliseconds(CLOCK_MONOTONIC) - start);
	return 0;
}

static int run_random(char **argv)
{
	unsigned char bytes[256];
	size_t count = (size_t)atoi(argv[0]);
	if (count > sizeof bytes || getrandom(bytes, count, 0) != (ssize_t)count)
		return fail("getrandom");
	for (size_t i = 0; i < count; i++)
		printf("%02x", bytes[i]);
	putchar('\n');
	return 0;
}

/* ---- network ----------------------------------------------------------------------------------- */

static void answer(int client, const char *body)
{
	char request[4096];
	if (read(client, request, sizeof request) > 0)
		dprintf(client, "HTTP/1.0 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
			strlen(body), body);
	close(client);
}

static int run_http(char **argv)
{
	int yes = 1, server = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[0])) };
	signal(SIGPIPE, SIG_IGN);
	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (bind(server, (struct sockaddr *)&address, sizeof address) < 0 || listen(server, 64) < 0)
		return fail(argv[0]);
	say("ready");
	for (;;) {
		int client = accept(server, NULL, NULL);
		if (client >= 0)
			answer(client, argv[1]);
	}
}

static int run_connect(char **argv)
{
	static const char request[] = "GET / HTTP/1.0\r\n\r\n";
	int client = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])) };
	if (inet_pton(AF_INET, argv[0], &address.sin_addr) != 1)
		return fail(argv[0]);
	if (connect(client, (struct sockaddr *)&address, sizeof address) < 0)
		return fail(argv[0]);
	if (write(client, request, sizeof request - 1) < 0 || copy(client, 1) < 0)
		return fail(argv[0]);
	return 0;
}

static void print_interface(int control, const char *name)
{
	struct ifreq request = { 0 };
	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
	ioctl(control, SIOCGIFFLAGS, &request);
	printf("%s %s ", name, request.ifr_flags & IFF_UP ? "up" : "down");
	ioctl(control, SIOCGIFHWADDR, &request);
	const unsigned char *mac = (const unsigned char *)request.ifr_hwaddr.sa_data;
	printf("%02x:%02x:%02x:%02x:%02x:%02x ", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
	if (ioctl(control, SIOCGIFADDR, &request) == 0) {
		printf("%s/", inet_ntoa(((struct sockaddr_in *)&request.ifr_addr)->sin_addr));
		ioctl(control, SIOCGIFNETMASK, &request);
		printf("%s ", inet_ntoa(((struct sockaddr_in *)&request.ifr_netmask)->sin_addr));
	} else {
		printf("- ");
	}
	ioctl(control, SIOCGIFMTU, &request);
	printf("%d\n", request.ifr_mtu);
}

/* Sends a text to a Unix socket and prints what comes back. */
static int run_unix(char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char answer[256];
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	strncpy(address.sun_path, argv[0], sizeof address.sun_path - 1);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 || write(fd, argv[1], strlen(argv[1])) < 0)
		return fail(argv[0]);
	ssize_t count = read(fd, answer, sizeof answer);
	return count <= 0 || write(1, answer, (size_t)count) < 0 ? fail(argv[0]) : 0;
}

static int run_interfaces(char **argv)
{
	(void)argv;
	int control = socket(AF_INET, SOCK_DGRAM, 0);
	struct if_nameindex *names = if_nameindex();
	if (!names)
		return fail("if_nameindex");
	for (struct if_nameindex *each = names; each->if_name; each++)
		print_interface(control, each->if_name);
	return 0;
}

/* ---- the table --------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	int arguments;
	int (*run)(char **argv);
} commands[] = {
	{ "exit", 1, run_exit }, { "signal", 1, run_signal }, { "echo", 0, run_echo },
	{ "stderr", 0, run_stderr }, { "both", 2, run_both }, { "cat", 0, run_cat }, { "env", 0, run_env },
	{ "cwd", 0, run_cwd }, { "hostname", 0, run_hostname }, { "pid", 0, run_pid },
	{ "uname", 0, run_uname }, { "machine-id", 0, run_machine_id }, { "id", 0, run_id },
	{ "umask", 0, run_umask }, { "limit", 1, run_limit }, { "tty", 0, run_tty }, { "winch", 0, run_winch },
	{ "trap", 2, run_trap }, { "ignore", 1, run_ignore }, { "sleep", 1, run_sleep },
	{ "spin", 0, run_spin }, { "fork-zombies", 1, run_fork_zombies }, { "children", 1, run_children },
	{ "write", 2, run_write }, { "read", 1, run_read }, { "unlink", 1, run_unlink },
	{ "mkdir", 1, run_mkdir }, { "setxattr", 3, run_setxattr }, { "stat", 1, run_stat }, { "ls", 1, run_ls }, { "mounts", 0, run_mounts },
	{ "caps", 0, run_caps }, { "seccomp", 1, run_seccomp }, { "alloc", 1, run_alloc },
	{ "cpu", 1, run_cpu }, { "http", 2, run_http }, { "connect", 2, run_connect },
	{ "unix", 2, run_unix },
	{ "random", 1, run_random }, { "interfaces", 0, run_interfaces }, { "fds", 0, run_fds },
	{ "time", 0, run_time },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof commands[0]; i++)
		if (strcmp(argv[1], commands[i].name) == 0 && argc - 2 >= commands[i].arguments)
			return commands[i].run(argv + 2);
	fprintf(stderr, "probe: no command '%s' with these arguments\n", argc > 1 ? argv[1] : "");
	return 2;
}
