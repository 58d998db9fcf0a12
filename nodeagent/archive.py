"""A checkpoint on the shared file system: a directory of files and a manifest that says what they must be.

It is written under another name, each file and the directory made durable, and put in place by a rename: a directory of the right
name is whole. All of it belongs to the job's user, who alone may read it, for it holds the job's memory. That user can change it,
too: so the hash of the manifest is kept where only MX writes (``digest``), the manifest has the hash of each file, and what is
restored is a copy that was verified while it was made.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from pydantic import Field, ValidationError

from crds.job import RunAs
from crds.meta import Model, Time
from nodeagent.errors import CheckpointDamaged, CheckpointFailed
from nodeagent.jobdir import SCRATCH, remove_tree

MANIFEST = "manifest.json"
SCRATCH_FILE = "scratch.tar"
"""The job's /tmp and /dev/shm."""
PARTIAL = ".partial"
CHUNK = 1 << 20
MOST_MANIFEST = 8 << 20  # bytes; a longer one was not written by us

Stopped = Callable[[], bool]


class Entry(Model):
    """One file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._]{0,200}$")
    length: int
    blake2b: str


class Manifest(Model):
    """What belongs to a checkpoint, and what a restore has to know."""

    job_uid: str
    name: str
    last_pid: int
    cpu_seconds: float
    started_at: Time | None = None
    files: list[Entry]

    @property
    def bytes(self) -> int:
        return sum(file.length for file in self.files)


def store(images: Path, target: Path, manifest: Manifest, owner: RunAs, stopped: Stopped) -> tuple[str, int]:
    """Copies ``images`` to ``target``, with the manifest completed; returns its digest and the bytes of all files.

    Blocks; ends with CheckpointFailed soon after ``stopped`` says so, and leaves nothing then. Raises OSError.
    """
    partial = target.with_name(target.name + PARTIAL)
    remove_tree(partial)
    partial.mkdir(parents=True, mode=0o700)
    try:
        entries = [_copy(image, partial / image.name, stopped) for image in _images(images)]
        whole = manifest.model_copy(update={"files": entries})
        text = whole.to_json()
        _write_durably(partial / MANIFEST, text)
        for path in (*partial.iterdir(), partial):
            os.chown(path, owner.uid, owner.gid)
        _sync_directory(partial)
        remove_tree(target)
        partial.rename(target)
        _sync_directory(target.parent)
    except BaseException:
        remove_tree(partial)
        raise
    return _hash(text), whole.bytes + len(text)


def fetch(source: Path, images: Path, digest: str, stopped: Stopped) -> Manifest:
    """Copies a checkpoint into ``images``, verified. Blocks. CheckpointDamaged when it is not what was taken; OSError."""
    manifest = _read_manifest(source / MANIFEST, digest)
    for entry in manifest.files:
        if _copy(source / entry.name, images / entry.name, stopped, most=entry.length) != entry:
            raise CheckpointDamaged(f"{source.name}: {entry.name} is not what was written: its checksum differs")
    return manifest


def size(source: Path) -> int:
    """Bytes of all files, before they are verified. Raises OSError."""
    return sum(path.lstat().st_size for path in source.iterdir())


def pack_scratch(directory: Path, images: Path) -> None:
    """The job's /tmp and /dev/shm into one file among the images. Raises OSError."""
    with tarfile.open(images / SCRATCH_FILE, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in SCRATCH:
            if (directory / name).is_dir():
                tar.add(directory / name, name)


def unpack_scratch(images: Path, directory: Path) -> None:
    """What was packed takes the place of what is there now; no sandbox may use it. Raises OSError, CheckpointDamaged."""
    for name in SCRATCH:
        remove_tree(directory / name)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(images / SCRATCH_FILE) as tar:
            tar.extractall(directory, numeric_owner=True, filter="fully_trusted")  # verified to be what an agent packed
    except tarfile.TarError as error:
        raise CheckpointDamaged(f"{SCRATCH_FILE}: {error}") from error


def scratch_size(directory: Path) -> int:
    """Bytes in the job's /tmp and /dev/shm, roughly."""
    return sum(_sizes(directory))


def _sizes(directory: Path) -> Iterator[int]:
    for name in SCRATCH:
        for path, _, files in os.walk(directory / name):
            for file in files:
                try:
                    yield Path(path, file).lstat().st_size
                except FileNotFoundError:
                    continue  # the job has removed it meanwhile


def remove_partial(directory: Path) -> None:
    """What dead agents left half-written in the job's directory of checkpoints. Raises OSError."""
    for path in directory.glob(f"*{PARTIAL}"):
        remove_tree(path)


def check_space(directory: Path, need: int) -> None:
    """CheckpointFailed unless the file system of ``directory`` has so many bytes."""
    free = shutil.disk_usage(directory).free
    if free < need:
        raise CheckpointFailed(f"no room for a checkpoint: {need} bytes are needed, {free} are free on the shared file system")


def _images(images: Path) -> list[Path]:
    return [path for path in sorted(images.iterdir()) if path.is_file() and path.suffix != ".log"]


def _copy(source: Path, target: Path, stopped: Stopped, most: int | None = None) -> Entry:
    """Durable when it returns. ``most``: bytes after which it cannot be the right one any more."""
    digest, length = hashlib.blake2b(), 0
    with _open(source) as reading, target.open("xb", buffering=0) as writing:
        target.chmod(0o600)
        while data := reading.read(CHUNK):
            if stopped():
                raise CheckpointFailed(f"{target.name}: copying was called off")
            length += len(data)
            if most is not None and length > most:
                break
            digest.update(data)
            while data:
                data = data[writing.write(data) :]
        os.fsync(writing.fileno())
    return Entry(name=source.name, length=length, blake2b=digest.hexdigest())


def _open(path: Path) -> FileIO:
    """Its owner may have put a link or a pipe there; neither must lead or hold us anywhere. Raises CheckpointDamaged, OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            raise CheckpointDamaged(f"{path.parent.name}: {path.name} is missing") from error
        raise
    file = FileIO(descriptor)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise CheckpointDamaged(f"{path.parent.name}: {path.name} is no file any more")
    return file


def _read_manifest(path: Path, digest: str) -> Manifest:
    with _open(path) as file:
        text = file.read(MOST_MANIFEST)
    if _hash(text) != digest:
        raise CheckpointDamaged(f"{path.parent.name}: {path.name} is not what was written: its checksum differs")
    try:
        return Manifest.model_validate_json(text)
    except (ValidationError, json.JSONDecodeError) as error:
        raise CheckpointDamaged(f"{path.parent.name}: {path.name} is of another version") from error


def _write_durably(path: Path, text: bytes) -> None:
    with path.open("xb", buffering=0) as file:
        path.chmod(0o600)
        file.write(text)
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _hash(text: bytes) -> str:
    return hashlib.blake2b(text).hexdigest()
