/* The verb `tty`: a terminal of the place's own. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "verbs.h"

/* The master of a new terminal of the place's own devpts, unlocked. */
static int open_master(struct context *context)
{
	static const char path[] = "/dev/pts/ptmx";
	int unlocked = 0;
	int master = path_open(path, O_RDWR | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK, 0);
	if (master < 0)
		return verb_fail(context, path, errno);
	if (!on_filesystem(master, DEVPTS_SUPER_MAGIC))
		return close_with(master, verb_fail(context, path, EXDEV));
	if (fcntl(master, F_SETFL, 0) < 0 || ioctl(master, TIOCSPTLCK, &unlocked) < 0)
		return close_with(master, verb_fail(context, path, errno));
	return master;
}

/* The main process's terminal is /dev/console too, as in Docker, unless the image made its own: only a
 * file made here is mounted on, so no link leads elsewhere (CVE-2025-52565). */
static int bind_console(int slave)
{
	int dev = path_open("/dev", O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
	if (dev < 0)
		return -1;
	if (mknodat(dev, "console", S_IFREG | 0600, 0) < 0)
		return close_with(dev, errno == EEXIST ? 0 : -1);
	int console = close_with(dev, openat(dev, "console", O_PATH | O_NOFOLLOW | O_CLOEXEC));
	if (console < 0)
		return -1;
	int tree = mount_clone(slave, 0);
	if (tree < 0)
		return close_with(console, -1);
	int result = mount_move(tree, console);
	close_with(tree, 0);
	return close_with(console, result);
}

static int send_descriptor(int socket, int fd)
{
	union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int))]; } control = { 0 };
	char byte = 0;
	struct iovec vector = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &vector, .msg_iovlen = 1,
		.msg_control = control.bytes, .msg_controllen = sizeof control.bytes,
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(header), &fd, sizeof fd);
	return sendmsg(socket, &message, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

static int take_terminal(struct context *context, int master, int slave, const struct winsize *size)
{
	if (setsid() < 0 && getsid(0) != getpid())
		return -1;
	if (ioctl(slave, TIOCSWINSZ, size) < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
		return -1;
	if (getpid() == 1 && bind_console(slave) < 0)
		return verb_fail(context, "/dev/console", errno);
	if (send_descriptor(context->tty_socket, master) < 0)
		return -1;
	for (int fd = 0; fd < 3; fd++)
		if (dup2(slave, fd) < 0)
			return -1;
	return 0;
}

VERB(tty)
{
	(void)argc;
	long long rows, columns;
	if (verb_number(context, argv[0], 0, UINT16_MAX, &rows) < 0
	    || verb_number(context, argv[1], 0, UINT16_MAX, &columns) < 0)
		return -1;
	struct winsize size = { .ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns };
	int master = open_master(context);
	if (master < 0)
		return -1;
	int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return close_with(master, -1);
	int result = take_terminal(context, master, slave, &size);
	close_with(slave, 0);
	return close_with(master, result);
}
