"""The real ``Sandbox``: one shim, its control group and its criu.

The shim keeps the state of the freeze, so that survives the agent exactly as long as the processes it is about. What is on the node
for it is told in namespaces.py.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec

from crds.job import Fencing, JobSpec, Stdio
from crds.report import EXEC_SESSION, Obstacle
from nodeagent import criu, guard, links, locks, shimlink
from nodeagent.ahead import Reading
from nodeagent.attachment import Attachment, connect, pause
from nodeagent.cgroups import JobGroup
from nodeagent.engine import Copy, Exit, PageWire, Usage
from nodeagent.errors import EngineFailed, SandboxGone, StartFailed
from nodeagent.jobdir import LOG, SCRATCH
from nodeagent.preflight import Preflight
from nodeagent.preflight.ipc import has_sysv
from nodeagent.shim import state as shim
from nodeagent.shimlink import ShimLink
from nodeagent.stdio import JOB, SOCKETS
from nodeagent.tasks import count_runnable, without
from nodeagent.ttyimage import mend_terminals

log = logging.getLogger(__name__)

P = ParamSpec("P")

ABORT_SECONDS = 10.0
"""For criu to put the job in order after it was told to give up; then it is killed."""
POLL = 0.005
SESSION_OPEN = Obstacle(reason=EXEC_SESSION, message="a session of mxctl exec is open in it, which would end")


class NamespaceSandbox:
    """One shim with at most one copy of one job."""

    def __init__(self, copy: Copy, link: ShimLink, group: JobGroup, directory: Path, run: Path, shared: Path) -> None:
        self.copy = copy
        self._seen: Usage | None = None
        self._run = run
        self._attachments: list[Attachment] = []
        self._detaching = False
        self._door = asyncio.Lock()
        self._link = link
        self._group = group
        self._directory = directory
        self._preflight = Preflight(shared=shared)

    async def start(self, spec: JobSpec, env: dict[str, str]) -> None:
        """Starts the job's first process in its groups, as its user; its output is appended to the job's log."""
        user = spec.user
        for name in SCRATCH:  # the job's directory itself stays root's, so that nobody can put something else in their place
            os.chown(self._directory / name, user.uid, user.gid, follow_symlinks=False)
        answer = await self._raw(
            "start",
            command=spec.command,
            env=env,
            workdir=spec.workdir,
            log=str(self._directory / LOG),
            groups=[str(path) for path in self._group.everywhere],
            run_as=_run_as(spec),
            **({"stdio": self._stdio(spec.stdio)} if spec.stdio.stdin or spec.stdio.tty else {}),
        )
        if "code" in answer:
            raise StartFailed(answer["error"], answer["code"])
        if not answer["ok"]:
            raise EngineFailed(f"{self.copy.key}: {answer['error']}")

    def _stdio(self, stdio: Stdio, session: str = JOB) -> dict[str, Any]:
        """mx-stdio, which starts the command."""
        order = {**stdio.model_dump(), "socket": f"{SOCKETS}/{session}", "own": session != JOB}
        return {"program": shimlink.program(self._run, "mx-stdio"), "order": order}

    async def start_beside(self, session: str, spec: JobSpec, env: dict[str, str]) -> None:
        """By the shim, which keeps it out of the tree that moves."""
        answer = await self._raw(
            "start_beside",
            command=spec.command,
            env=env,
            workdir=spec.workdir,
            groups=[str(path) for path in self._group.everywhere],
            run_as=_run_as(spec),
            stdio=self._stdio(spec.stdio, session),
        )
        if "code" in answer:
            raise StartFailed(answer["error"], answer["code"])
        if not answer["ok"]:
            raise EngineFailed(f"{self.copy.key}: {answer['error']}")

    def has_session(self, session: str) -> bool:
        """By its socket, which mx-stdio removes at its end."""
        return (self._sockets / session).exists()

    async def pre_dump(self, images: Path, parent: str | None, *, deadline: float) -> None:
        """criu pre-dump; the job runs on, also when it fails."""
        log_file = self._link.run_dir / "dump.log"
        status = await self._ask("status")
        if status["phase"] != shim.RUNNING:
            raise EngineFailed(f"{self.copy.key}: nothing to dump, the sandbox is {status['phase']}")
        try:
            await self._criu("pre-dump", deadline, log_file, argv=criu.pre_dump_command(status["job"], images, log_file, parent))
        except BaseException:
            await _despite_cancellation(self._call_off())
            raise

    async def copy_ahead(self, file: Path, most: int) -> None:
        """In a thread, which ends before this does."""
        try:
            reading = Reading(sorted(self._group.pids()), file, most)
        except FileNotFoundError as error:
            raise SandboxGone(f"{self.copy.key}: its control group is gone: {error}") from error
        task = asyncio.ensure_future(asyncio.to_thread(reading.work))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            reading.stop()
            await asyncio.wait({task})
            raise

    async def dump(self, images: Path, *, deadline: float, parent: str | None = None) -> None:
        """criu dump; a failure of any kind, cancellation too, lets the job run on."""
        log_file = self._link.run_dir / "dump.log"

        def argv(job: int) -> list[str]:
            plain = criu.dump_command(job, images, log_file)
            return plain if parent is None else criu.last_dump_command(job, images, log_file, parent)

        await self._dump(images, deadline, log_file, argv)

    async def _dump(
        self, images: Path, deadline: float, log_file: Path, argv: Callable[[int], list[str]], wire: PageWire | None = None
    ) -> None:
        status = await self._ask("status")
        if status["phase"] != shim.RUNNING:
            raise EngineFailed(f"{self.copy.key}: nothing to dump, the sandbox is {status['phase']}")
        async with self._detached():
            await self._dump_or_resume(images, deadline, log_file, argv(status["job"]), wire)

    async def _dump_or_resume(self, images: Path, deadline: float, log_file: Path, argv: list[str], wire: PageWire | None) -> None:
        try:
            await self._criu("dump", deadline, log_file, wire, argv=await self._with_sysv(argv))
            criu.write_stopped(images, (await self._ask("status"))["stopped"])
            await _to_its_end(locks.let_go, self._group.pids(), self._locks)
            mend_terminals(images)
        except BaseException as error:
            await _despite_cancellation(self._call_off())
            if isinstance(error, OSError):
                raise EngineFailed(f"{self.copy.key}: images in {images}: {error}") from error
            raise

    async def _with_sysv(self, argv: list[str]) -> list[str]:
        """criu leaves the job's IPC namespace when there is something in it that it has to take along."""
        identity = shimlink.read_identity(self._link.run_dir)
        try:
            there = identity is not None and await asyncio.to_thread(has_sysv, identity.pid)
        except OSError as error:
            log.info("%s: System V objects are not known: %s", self.copy.key, error)
            return argv
        return criu.outside_ipc(argv) if there else argv

    @property
    def _locks(self) -> Path:
        """Where it is written which locks were let go for the freeze."""
        return self._link.run_dir / "locks.json"

    @asynccontextmanager
    async def _detached(self) -> AsyncIterator[None]:
        """Nobody is attached, nor can be, while criu looks at the job. Raises EngineFailed."""
        self._detaching = True
        try:
            async with self._door:  # whoever is just being let in is in before anybody is shown out
                await asyncio.gather(*(attachment.detach() for attachment in self._attachments))
                if self._talks:
                    await pause(await connect(self._sockets, JOB, self.copy.key), self.copy.key)
            yield
        finally:
            self._detaching = False

    @property
    def _sockets(self) -> Path:
        return self._link.run_dir / "stdio"

    @property
    def _talks(self) -> bool:
        """Whether the job has an mx-stdio."""
        return (self._sockets / JOB).exists()

    async def _go_on(self) -> None:
        """Lets mx-stdio know at once that the freeze is over; it would find out itself."""
        if self._talks:
            try:
                (await connect(self._sockets, JOB, self.copy.key)).close()
            except EngineFailed as error:
                log.debug("%s", error)

    async def attach(self, session: str = JOB) -> Attachment:
        """Connects to the job's mx-stdio."""
        async with self._door:
            phase = (await self._ask("status"))["phase"]
            if phase != shim.RUNNING or self._detaching:
                raise EngineFailed(f"{self.copy.key}: nobody can attach to it now, it is being moved")
            attachment = Attachment(await connect(self._sockets, session, self.copy.key), self.copy.key)
            if session == JOB:  # the others are no part of what criu looks at
                self._attachments = [*(other for other in self._attachments if not other.gone), attachment]
        return attachment

    async def serve(self, images: Path, wire: PageWire, *, deadline: float) -> None:
        """criu dump that goes on as the server of the job's pages; a failure before that lets the job run on."""
        log_file = self._link.run_dir / "dump.log"
        await self._dump(images, deadline, log_file, lambda job: criu.serve_command(job, images, log_file), wire)

    async def sever(self) -> None:
        """SIGKILL to all but criu."""
        await self._ask("sever")

    async def streamed(self) -> None:
        """Asks the shim, which answers when it is over."""
        await self._link.ask("streamed", None)

    async def expect(self) -> None:
        """What a restore needs and can be done before the job is frozen."""
        await self._ask("expect", groups=[str(path) for path in self._group.restoring])

    async def restore(self, images: Path, *, last_pid: int, deadline: float, wire: PageWire | None = None) -> None:
        """criu restore into this empty sandbox; when it fails everything but the shim is killed."""
        log_file, pages_log = self._link.run_dir / "restore.log", self._link.run_dir / "pages.log"
        stopped = criu.read_stopped(images)
        lazily = {}
        argv = criu.restore_command(images, log_file)
        if wire is not None:
            argv = criu.restore_lazily_command(images, log_file)
            lazily = {"fetch": criu.fetch_command(images, pages_log), "meeting": str(images / criu.MEETING)}
        if (phase := (await self._ask("status"))["phase"]) != shim.EMPTY:
            raise EngineFailed(f"{self.copy.key}: cannot restore, the sandbox is {phase}")
        try:
            await self._criu("restore", deadline, log_file, wire, argv=argv, last_pid=last_pid, **lazily)
            await self._ask("restored", groups=[str(path) for path in self._group.throttled], stopped=stopped)
        except BaseException as error:
            await _despite_cancellation(self._clear())
            if wire is not None and isinstance(error, EngineFailed):
                raise EngineFailed(f"{error}; its memory: {criu.cause(pages_log)}") from error
            raise

    async def resume(self) -> None:
        """SIGCONT to all but what was stopped before the freeze; nothing when it runs. First it gets its file locks back."""
        if (await self._ask("status"))["phase"] == shim.SERVING:
            await self._end_criu()
        await _to_its_end(locks.take_back, self._locks)
        await self._ask("thaw")
        await self._go_on()

    async def frozen(self) -> bool:
        """Whether a freeze or a restore has stopped it. False when its exit is recorded."""
        if not self._link.lives:
            self._recorded_exit()
            return False
        return (await self._ask("status"))["phase"] in (shim.FROZEN, shim.DUMPING, shim.SERVING)

    async def last_pid(self) -> int:
        """Beyond it many numbers are in use neither as PID nor as thread, process group or session."""
        return int((await self._ask("status"))["last_pid"])

    async def usage(self) -> Usage:
        """From the control groups. After the job's end its CPU time is still told, until ``kill``."""
        try:
            cpu, seen = self._group.cpu_seconds(), self._seen
            if seen is not None and seen.runnable == 0 and seen.cpu_seconds == cpu and self._link.lives:
                return seen  # nothing of it has run since, so nothing has changed
            pids = self._group.pids()
            if not self._link.lives:
                self._recorded_exit()
                return Usage(cpu, 0, 0, 0)
            self._seen = Usage(cpu, self._group.memory(), count_runnable(pids), len(pids))
            return self._seen
        except (FileNotFoundError, OSError) as error:
            raise SandboxGone(f"{self.copy.key}: its control group is gone: {error}") from error

    async def weigh(self, weight: int) -> None:
        """By its control group."""
        try:
            self._group.weigh(weight)
        except OSError as error:
            raise EngineFailed(f"{self.copy.key}: its share of the CPU cannot be set: {error}") from error

    async def obstacles(self, *, thorough: bool) -> list[Obstacle]:
        """What would keep it from being moved. Looks in a thread: a file system of the job's may hang."""
        identity = shimlink.read_identity(self._link.run_dir)
        if identity is None or not self._link.lives:
            self._recorded_exit()
            return []
        try:
            pids, beside = self._group.pids(), await self._beside()
            if beside:
                pids = without(pids, beside, identity.pid)
            found = await asyncio.to_thread(self._preflight.look, pids, identity.pid, thorough=thorough)
            return [*found, *([SESSION_OPEN] if beside else [])]
        except FileNotFoundError as error:
            raise SandboxGone(f"{self.copy.key}: its control group is gone: {error}") from error
        except (OSError, ValueError) as error:
            raise EngineFailed(f"{self.copy.key}: its processes cannot be looked at: {error}") from error

    async def files(self) -> list[str]:
        """Files of the node that the job has mapped."""
        try:
            return await asyncio.to_thread(self._preflight.mapped, self._group.pids())
        except FileNotFoundError:
            return []  # it has ended
        except OSError as error:
            raise EngineFailed(f"{self.copy.key}: its processes cannot be looked at: {error}") from error

    async def _beside(self) -> list[int]:
        """PIDs, in its namespace, of the mx-stdio of sessions beside the job."""
        if all(path.name == JOB for path in self._sockets.iterdir()):
            return []
        return [int(pid) for pid in (await self._ask("status"))["beside"]]

    async def wait_exit(self) -> Exit:
        """How its first process ended, when it has; SandboxGone when nobody recorded that."""
        await self._link.wait()
        return self._recorded_exit()

    async def signal(self, number: int) -> None:
        """To the job's first process."""
        await self._ask("signal", number=number)

    async def obey(self, policy: Fencing) -> None:
        """Tells the guard, by a file."""
        try:
            guard.write_policy(str(self._link.run_dir), policy)
        except FileNotFoundError as error:
            raise SandboxGone(f"{self.copy.key}: its records are gone: {error}") from error

    async def fenced(self) -> bool:
        """Whether its group is frozen. criu never freezes groups, and nobody else does."""
        return self._group.frozen

    async def thaw(self) -> None:
        """The group, and the network that was silenced with it; nothing that stands still for another reason."""
        if (self._link.run_dir / guard.PORT).exists():
            with contextlib.suppress(SandboxGone):  # then there is nobody to be heard
                await self._ask("reconnect")
        self._group.thaw()

    async def kill(self) -> None:
        """Ends everything, without letting what stands still go on. A recorded exit stays until the copy is forgotten."""
        self._link.strike()
        self._group.kill()
        await self._link.kill()
        await links.remove(links.port_of(self.copy))
        await self._group.remove()
        if not (self._link.run_dir / "exit.json").exists():
            remove_record(self._link.run_dir)

    async def settle(self) -> None:
        """After a restart of the agent: no criu goes on that nobody waits for, nothing half-restored stays."""
        if not self._link.lives:
            return
        status = await self._ask("status")
        if status["phase"] == shim.RESTORING:
            await self._clear()
        elif status["criu"] is not None and not self._group.frozen and not status["streaming"]:
            await self._end_criu()

    async def _criu(self, verb: str, deadline: float, log_file: Path, wire: PageWire | None = None, **fields: Any) -> None:
        """Runs criu by the shim. EngineFailed with the cause it gives."""
        log_file.unlink(missing_ok=True)
        began = time.monotonic()
        try:
            answer = await self._link.ask(verb, deadline, wire=wire.sock.fileno() if wire else None, **fields)
        except TimeoutError:
            raise EngineFailed(f"{self.copy.key}: criu {verb} took longer than {deadline} s") from None
        if answer["rc"] != 0:
            raise EngineFailed(f"{self.copy.key}: criu {verb} {criu.failure(answer['rc'], log_file)}")
        log.debug("%s: criu %s took %.0f ms", self.copy.key, verb, (time.monotonic() - began) * 1000)

    async def _call_off(self) -> None:
        """After a failed dump: criu ends, the job runs. Nothing to do when the shim has ended with the job."""
        try:
            await self._end_criu()
            await self.resume()
        except SandboxGone:
            return

    async def _end_criu(self) -> None:
        """Makes a running criu give up; first in the way that leaves the job whole."""
        await self._ask("abort", force=False)
        end = time.monotonic() + ABORT_SECONDS
        while (await self._ask("status"))["criu"] is not None:
            if self._group.frozen:  # it waits for processes that stand still, with its own code inside them: never kill it now
                raise EngineFailed(f"{self.copy.key}: criu cannot give up while the job is fenced; it does when that is over")
            if time.monotonic() > end:
                log.error("%s: criu does not give up within %s s, killing it", self.copy.key, ABORT_SECONDS)
                await self._ask("abort", force=True)
            await asyncio.sleep(POLL)

    async def _clear(self) -> None:
        if self._group.frozen:
            self._group.kill()
        try:
            await self._ask("clear")
        except SandboxGone:
            return

    async def _ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        try:
            return await self._link.ask(verb, **fields)
        except TimeoutError:
            raise EngineFailed(f"{self.copy.key}: its shim does not answer to {verb}") from None

    async def _raw(self, verb: str, **fields: Any) -> dict[str, Any]:
        try:
            return await self._link.ask_raw(verb, **fields)
        except TimeoutError:
            raise EngineFailed(f"{self.copy.key}: its shim does not answer to {verb}") from None

    def _recorded_exit(self) -> Exit:
        if (self._link.run_dir / "lost.json").exists():
            raise SandboxGone(f"{self.copy.key}: a part of its memory never came: {criu.cause(self._link.run_dir / 'pages.log')}")
        try:
            data = json.loads((self._link.run_dir / "exit.json").read_text())
        except FileNotFoundError:
            raise SandboxGone(f"{self.copy.key}: died with its shim, no exit code was recorded") from None
        killed = guard.was_killed(str(self._link.run_dir))
        return Exit(data["code"], datetime.fromtimestamp(data["time"], UTC), killed)


def _run_as(spec: JobSpec) -> dict[str, Any]:
    return {
        **spec.user.to_data(),
        "limits": spec.limits,
        "nice": spec.nice,
        "umask": spec.umask,
        "io_uring": spec.migration.io_uring,
    }


async def _despite_cancellation(work: Any) -> None:
    """Waits for ``work`` to its end even when we are cancelled (again) meanwhile: it puts the job in order."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            continue  # whoever waits for us gets the original exception
    task.result()


async def _to_its_end(work: Callable[P, None], *what: P.args, **how: P.kwargs) -> None:
    """In a thread. A cancellation waits for it: what follows must not begin while it is in the middle."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *what, **how))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def remove_record(run_dir: Path) -> None:
    """copy.json goes last: as long as anything is there, it is known whose it is."""
    if run_dir.exists():
        for path in run_dir.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "copy.json":
                path.unlink()
        shutil.rmtree(run_dir)
