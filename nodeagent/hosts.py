"""Names of jobs with a network of their own: a block in the node's hosts file, which the jobs on the node see too.

Only what stands between the two marks is ours. A name that the file gives to somebody outside of them stays with him: a job cannot
take the name of a node. The file is replaced as a whole, so whoever reads it finds the old text or the new.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from crds import keys
from crds.network import HostEntry
from store.informer import SELDOM, Informer
from store.kv import KV, KeyValue

log = logging.getLogger(__name__)

BEGIN = "# begin of jobs' names: kept by the node agent, changes are lost"
END = "# end of jobs' names"
RETRY = 5.0  # seconds after a failure


class HostsBroken(ValueError):  # noqa: N818 - named after the state of the file
    """One mark is there without the other, so nobody knows whose a line is."""


async def keep_hosts(kv: KV, file: Path) -> None:
    """Until cancelled. What cannot be written is said once and tried again."""
    informer, changed = Informer(kv, keys.HOSTS, probe=SELDOM), asyncio.Event()
    informer.subscribe(lambda *_: changed.set())
    async with asyncio.TaskGroup() as group:
        group.create_task(informer.run(), name="names of jobs")
        await informer.synced.wait()
        told = ""
        while True:
            changed.clear()
            wait: float | None = None
            try:
                await asyncio.to_thread(update, file, list(read(informer.items.values())))
                told = ""
            except (OSError, HostsBroken) as error:
                if told != str(error):
                    log.error("%s: names of jobs are not up to date: %s", file, error)
                told, wait = str(error), RETRY
            await _wait(changed, wait)


async def _wait(changed: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        return


def read(stored: Iterable[KeyValue]) -> Iterator[HostEntry]:
    """In the order of their keys; what cannot be read is left out, as the reconciler tells of it."""
    for kv in sorted(stored, key=lambda kv: kv.key):
        try:
            yield HostEntry.model_validate_json(kv.value)
        except ValidationError as error:
            log.warning("%s: left out of the hosts file: %s", kv.key, str(error).splitlines()[0])


def update(file: Path, entries: Iterable[HostEntry]) -> None:
    """Writes when something differs. Raises OSError, HostsBroken."""
    old = file.read_bytes().decode(errors="surrogateescape") if file.exists() else ""
    new = with_jobs(old, entries)
    if new == old:
        return
    fresh = file.with_name(f".{file.name}.mx-{os.getpid()}")
    try:
        with fresh.open("wb") as out:
            out.write(new.encode(errors="surrogateescape"))
            out.flush()
            os.fsync(out.fileno())
        if file.exists():
            shutil.copymode(file, fresh)
        else:
            fresh.chmod(0o644)
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)


def with_jobs(text: str, entries: Iterable[HostEntry]) -> str:
    """The file's text with these jobs in our block; without any, there is no block. Raises HostsBroken."""
    before, after = _around(text)
    taken = _names(before + after)
    lines = []
    for entry in entries:
        names = [name for name in dict.fromkeys(entry.names) if name not in taken]
        taken.update(names)
        if names:
            lines.append(f"{entry.address} {' '.join(names)}\n")
    if not lines:
        return before + after
    gap = "" if not before or before.endswith("\n") else "\n"
    return f"{before}{gap}{BEGIN}\n{''.join(lines)}{END}\n{after}"


def _around(text: str) -> tuple[str, str]:
    """What stands before and after our block."""
    lines = text.splitlines(keepends=True)
    marks = [[at for at, line in enumerate(lines) if line.rstrip("\n") == mark] for mark in (BEGIN, END)]
    if marks == [[], []]:
        return text, ""
    if [len(found) for found in marks] != [1, 1] or marks[0] > marks[1]:
        raise HostsBroken(f'the lines "{BEGIN}" and "{END}" must stand there once each: remove both')
    return "".join(lines[: marks[0][0]]), "".join(lines[marks[1][0] + 1 :])


def _names(text: str) -> set[str]:
    """All that the text gives an address to."""
    words = (line.partition("#")[0].split() for line in text.splitlines())
    return {name for line in words for name in line[1:]}
