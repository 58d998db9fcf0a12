"""Turns a process into the first process of a node. Run as a script with a JSON file as its argument; standard library only.

It enters the node's control groups before anything else (that is how the lab finds everything again), then the network
namespace, makes the other namespaces, mounts the node's file systems and becomes the image's ``mx-init``. All mounts are made
in the new mount namespace, so they go with the node and the host never sees them.

pivot_root and not chroot, as criu wants a root that is a mount. On success the number of the first process is printed; on
failure one line on stderr, exit code 1.
"""

import ctypes
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
PIVOT_SECONDS = 10

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
INIT = ["/usr/bin/python3", "-ISE", "/usr/sbin/mx-init"]
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME": "/root", "LANG": "C.UTF-8"}

libc = ctypes.CDLL(None, use_errno=True)


def main(plan_file: str) -> int:
    """Boots; returns when the first process runs."""
    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    for entrance in plan["entrances"]:
        Path(entrance).write_text(str(os.getpid()), encoding="utf-8")
    with Path(plan["netns"]).open("rb") as netns:
        check(libc.setns(netns.fileno(), CLONE_NEWNET), f"enter {plan['netns']}")
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID), "make namespaces")
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    reading, writing = os.pipe()  # closes when the child has become mx-init; before, it carries what went wrong
    child = os.fork()
    if child == 0:
        os.close(reading)
        become_init(plan, writing)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        failure = pipe.read()
    if failure:
        print(failure, file=sys.stderr)
        return 1
    print(child)
    return 0


def become_init(plan: dict[str, Any], failures: int) -> None:
    """In the new pid namespace: never returns."""
    try:
        os.setsid()
        socket.sethostname(plan["hostname"])
        log = os.open(plan["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        mount_root(plan)
        pivot(plan["root"])
        nothing = os.open("/dev/null", os.O_RDONLY)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        command = plan.get("command", INIT)
        os.execve(command[0], command, ENVIRONMENT)
    except OSError as error:
        os.write(failures, f"{error.strerror}: {error.filename}".encode())
    finally:
        os._exit(1)


def mount_root(plan: dict[str, Any]) -> None:
    """All file systems of the node, below ``plan["root"]``, while the host's are still in sight."""
    root = Path(plan["root"])
    mount("overlay", root, "overlay", 0, f"lowerdir={plan['lower']},upperdir={plan['upper']},workdir={plan['work']}")
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", root / "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("tmpfs", root / "run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    mount("tmpfs", root / "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount_devices(root / "dev")
    mount_groups(root / "sys/fs/cgroup", plan["views"])
    for source, target in plan["binds"]:
        (root / target).mkdir(parents=True, exist_ok=True)
        mount(source, root / target, None, MS_BIND)


def mount_devices(dev: Path) -> None:
    """A /dev with what programs expect and no real device."""
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=0755")
    os.umask(0)
    for name, (major, minor) in DEVICES.items():
        os.mknod(dev / name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
    for name, target in LINKS.items():
        (dev / name).symlink_to(target)
    (dev / "net").mkdir(mode=0o755)
    os.mknod(dev / "net/tun", 0o666 | stat.S_IFCHR, os.makedev(10, 200))  # criu asks for it
    (dev / "pts").mkdir(mode=0o755)
    (dev / "shm").mkdir(mode=0o755)
    os.umask(0o022)
    mount("devpts", dev / "pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    mount("tmpfs", dev / "shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")


def mount_groups(target: Path, views: list[list[str]]) -> None:
    """The node's own part of each hierarchy, where a machine has the whole of it."""
    if [name for _, name in views] != [""]:
        mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755")
    for source, name in views:
        if name:
            (target / name).mkdir()
        mount(source, target / name, None, MS_BIND)


def pivot(root: str) -> None:
    """Makes ``root`` the root; the old one is stacked on it for a moment, then gone (see pivot_root(2))."""
    os.chdir(root)
    done = subprocess.run(["pivot_root", ".", "."], capture_output=True, text=True, timeout=PIVOT_SECONDS, check=False)
    if done.returncode:
        raise OSError(done.returncode, done.stderr.strip(), root)
    check(libc.umount2(b".", MNT_DETACH), "leave the host's root")
    os.chdir("/")


def mount(source: object, target: object, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2); OSError naming the target."""
    kind_bytes = kind.encode() if kind else None
    source_bytes = str(source).encode() if source else None
    check(libc.mount(source_bytes, str(target).encode(), kind_bytes, flags, options.encode() or None), f"mount {target}")


def check(result: int, doing: str) -> None:
    """Turns libc's -1 into OSError."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), doing)


if __name__ == "__main__":
    libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
    try:
        sys.exit(main(sys.argv[1]))
    except OSError as failed:
        print(f"{failed.strerror}: {failed.filename}", file=sys.stderr)
        sys.exit(1)
