"""What a QEMU in a stranger's hands would try: run in QEMU's stead, it tells each attempt's errno.

Run by the host's Python, which like QEMU is a program of /usr with its libraries.  Descriptor 100
is QEMU's control socket: it brings the facts of the host to try things with and takes the answers.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial

CONTROL, IMAGE = 100, 102
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
AT_FDCWD, AT_EMPTY_PATH, NEWUSER, SIGCHLD = -100, 0x1000, 0x10000000, 17
NUMBERS = {
    "ptrace": 101, "process_vm_readv": 310, "unshare": 272, "setns": 308, "mount": 165,
    "umount2": 166, "pivot_root": 155, "chroot": 161, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "mount_setattr": 442, "bpf": 321, "keyctl": 250, "add_key": 248,
    "request_key": 249, "perf_event_open": 298, "userfaultfd": 323, "kexec_load": 246,
    "kexec_file_load": 320, "init_module": 175, "finit_module": 313, "delete_module": 176,
    "open_by_handle_at": 304, "name_to_handle_at": 303, "io_uring_setup": 425, "reboot": 169,
    "swapon": 167, "settimeofday": 164, "clock_settime": 227, "sethostname": 170, "quotactl": 179,
    "acct": 163, "syslog": 103, "iopl": 172, "ioperm": 173, "fork": 57, "vfork": 58, "clone3": 435,
    "setuid": 105, "setgroups": 116, "setresuid": 117, "capset": 126, "personality": 135,
    "pidfd_open": 434, "pidfd_getfd": 438, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240,
    "fanotify_init": 300, "inotify_init1": 294, "memfd_secret": 447, "landlock_restrict_self": 446,
    "modify_ldt": 154, "kcmp": 312, "sched_setscheduler": 144, "ioprio_set": 251,
    "migrate_pages": 256, "lookup_dcookie": 212, "nfsservctl": 180, "vhangup": 153,
}  # fmt: skip
FAMILIES = ("INET", "INET6", "NETLINK", "PACKET", "ALG", "VSOCK", "BLUETOOTH", "CAN")


def attempt(work: Callable[[], object]) -> str:
    """The errno's name, or ok."""
    try:
        work()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    except Exception as error:  # a refusal in Python's words
        return type(error).__name__
    return "ok"


def call(number: int, *arguments: object) -> Callable[[], object]:
    """A system call, padded with zeros."""

    def work() -> object:
        words = (ctypes.c_long(word) if isinstance(word, int) else word for word in arguments)
        if LIBC.syscall(ctypes.c_long(number), *words) < 0:
            raise OSError(ctypes.get_errno(), "")
        return 0

    return work


def opened(path: str, flags: int = os.O_RDONLY) -> Callable[[], object]:
    """Opening a path."""
    return lambda: os.close(os.open(path, flags, 0o644))


def connected(address: str) -> Callable[[], object]:
    """Connecting to a Unix socket."""

    def work() -> None:
        with socket.socket(socket.AF_UNIX) as made:
            made.connect(address)

    return work


def lifted(kind: int) -> Callable[[], object]:
    """Raising a hard limit."""
    hard = resource.getrlimit(kind)[1]
    return lambda: resource.setrlimit(kind, (hard + 1, hard + 1))


def fill() -> None:
    """More than the directories of shares need."""
    with open("/shares/filler", "wb", buffering=0) as file:
        for _ in range(1024):
            file.write(bytes(1024))


def threaded() -> None:
    """What QEMU does need."""
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def attempts(host: dict[str, list[str]]) -> dict[str, Callable[[], object]]:
    """By name: files and sockets the test names, then everything else."""
    blank = ctypes.create_string_buffer(64)
    shell = ctypes.c_char_p(b"/usr/bin/sh")
    words = (ctypes.c_char_p * 2)(b"sh", None)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    found: dict[str, Callable[[], object]] = {
        f"call {name}": call(number, blank, blank, 0, 0, 0) for name, number in NUMBERS.items()
    }
    found |= {f"read {path}": opened(path) for path in host["read"]}
    found |= {f"list {path}": partial(os.listdir, path) for path in host["list"]}
    found |= {f"write {path}": opened(path, os.O_RDWR | os.O_CREAT) for path in host["write"]}
    found |= {f"connect {path}": connected(path) for path in host["connect"]}
    found |= {f"kill {pid}": partial(os.kill, int(pid), 9) for pid in host["kill"]}
    found |= {
        f"socket {name}": partial(socket.socket, getattr(socket, f"AF_{name}"), socket.SOCK_RAW)
        for name in FAMILIES
    }
    return found | {
        "clone newuser": call(56, NEWUSER | SIGCHLD, 0, 0, 0, 0),
        "clone process": call(56, SIGCHLD, 0, 0, 0, 0),
        "ptrace attach": call(101, 16, 1, 0, 0),
        "execve sh": call(59, shell, words, 0),
        "execveat sh": call(322, AT_FDCWD, shell, words, 0, 0),
        "execveat own": call(322, hard, ctypes.c_char_p(b""), words, 0, AT_EMPTY_PATH),
        "dup to the program": lambda: os.dup2(0, hard),
        "limit nofile": lifted(resource.RLIMIT_NOFILE),
        "abstract socket": connected("\0proa-test"),
        "fill shares": fill,
        "make directory": lambda: os.mkdir("/tmp/x"),
        "make link": lambda: os.symlink("x", "/dev/shm/x"),
        "make node": lambda: os.mknod("/dev/sda", 0o60600, os.makedev(8, 0)),
        "image again, writable": opened(f"/proc/self/fd/{IMAGE}", os.O_RDWR),
        "image truncated": lambda: os.ftruncate(IMAGE, 0),
        "image again": opened(f"/proc/self/fd/{IMAGE}"),
        "thread": threaded,
        "memory": lambda: os.close(os.memfd_create("x")),
        "unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
    }


def main() -> None:
    """Ask, try, tell."""
    with socket.socket(fileno=CONTROL) as control:
        host = json.loads(control.makefile().readline())
        results = {name: attempt(work) for name, work in attempts(host).items()}
        results["status"] = open("/proc/self/status").read()
        results["pids"] = " ".join(name for name in os.listdir("/proc/self/task"))
        results["parent"] = str(os.getppid())
        results["mounts"] = open("/proc/self/mountinfo").read()
        control.sendall(json.dumps(results).encode() + b"\n")
        control.recv(1)  # stays until the test is done
    sys.exit(0)


if __name__ == "__main__":
    main()
