"""Obstacles among files: what is open, mapped or stood in must be there again under its name, the same, on the next node.

Three kinds are: what lies on the shared file system (the job's /tmp and /dev/shm do), what the image has and nobody has touched
since, and files deleted while open, which criu carries along.
"""

import stat
from collections.abc import Iterator

from crds.report import Obstacle
from nodeagent.preflight.scene import DELETED, Descriptor, Process, Scene

LOCAL = "NodeLocalFile"
BIG = "BigDeletedFile"
UNKNOWN = "UnsupportedDescriptor"

GHOST_LIMIT = 512 << 20
"""Bytes of one deleted file that criu is told to carry along."""
SYSTEM = ("/usr/", "/lib/", "/lib64/", "/bin/", "/sbin/", "/opt/", "/etc/")
"""Taken as the same everywhere on machines that run no image of ours, as long as nobody writes there."""
_DIRECTORIES = """
/ /bin /boot /dev /dev/pts /dev/shm /etc /home /lib /lib64 /media /mnt /opt /proc /root /run /sbin /srv /sys /tmp /usr
/var /var/cache /var/lib /var/log /var/run /var/spool /var/tmp
"""
STANDARD = frozenset(_DIRECTORIES.split())
"""Directories of every Debian."""
NOT_FILES = ("/memfd:", "/proc/", "/sys/", "/dev/", "/SYSV", "/anon_hugepage", "/[aio]", "/i915")
"""Memory with a name, and files that every kernel has; devices are another family's."""


def local(scene: Scene) -> Iterator[Obstacle]:
    for process in scene.processes:
        held = [(each, f"descriptor {each.number}") for each in process.descriptors]
        held += list(zip(process.places, ("its program", "its working directory", "its root directory"), strict=False))
        for each, what in held:
            if _is_local(each, scene) and not _is_nowhere(each, process):
                yield _obstacle(process, each.path, what)
        for mapping in process.mappings:
            each = Descriptor(-1, mapping.target, stat.S_IFREG, changed=mapping.changed)
            if not each.deleted and _is_local(each, scene):
                yield _obstacle(process, each.path, "mapped")


def big(scene: Scene) -> Iterator[Obstacle]:
    for process in scene.processes:
        for each in process.descriptors:
            if each.deleted and each.links == 0 and each.size > GHOST_LIMIT and not each.target.startswith(NOT_FILES):
                yield Obstacle(
                    reason=BIG,
                    message=f"{process} holds the deleted file {each.path} of {each.size >> 20} MiB, more than the "
                    f"{GHOST_LIMIT >> 20} that are carried along: let it keep the file's name, below /shared",
                )


def unmounted(scene: Scene) -> Iterator[Obstacle]:
    """Files of file systems that are mounted nowhere: POSIX message queues, secret memory."""
    for process in scene.processes:
        for each in process.descriptors:
            if _is_nowhere(each, process):
                yield Obstacle(
                    reason=UNKNOWN,
                    message=f"{process} holds {each.path} (descriptor {each.number}), which lies in no file system it sees "
                    "(a message queue, secret memory): let it close that",
                )


def _is_nowhere(each: Descriptor, process: Process) -> bool:
    return bool(each.mount and process.mounts and each.mount not in process.mounts)


def _is_local(each: Descriptor, scene: Scene) -> bool:
    kind = stat.S_IFMT(each.mode)
    if not each.target.startswith("/") or each.target.startswith(NOT_FILES) or scene.is_shared(each.path):
        return False
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO) or each.path in STANDARD:
        return False
    if each.deleted:
        return each.links > 0  # another name is left, and criu looks for it there
    if scene.image_time is not None and each.changed <= scene.image_time:
        return False
    if kind == stat.S_IFDIR:
        return not f"{each.path}/".startswith(SYSTEM)
    return scene.image_time is not None or each.writable or not each.path.startswith(SYSTEM)


def _obstacle(process: Process, path: str, what: str) -> Obstacle:
    return Obstacle(
        reason=LOCAL,
        message=f"{process} uses {path.removesuffix(DELETED)} ({what}), which only this node has: keep it below /shared or in /tmp",
    )
