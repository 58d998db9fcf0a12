"""One namespace node over the node image, without network, etcd or agent: just enough of a machine for sandboxes.

Booted by the lab's own boot code. ``RemoteEngine`` is the real engine, run by a process on the node on the image's Python; killing
that process is the death of an agent.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from clip import agent
from clip.image import ensure, is_built, wanted
from clip.recipe import DEPENDENCIES
from crds.job import Fencing, JobSpec
from crds.report import Obstacle
from lab.cgroups import Groups
from lab.node import BOOT, INIT
from nodeagent import errors
from nodeagent.engine import Copy, Exit, Network, Usage
from nodeagent.links import BRIDGE

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("crds", "nodeagent")
ADDRESS = "10.77.0.11"
"""Of every node's bridge: none knows of another."""
SERVER = Path(__file__).with_name("engine_server.py")
BOOT_SECONDS = 30
NAMESPACES = ["--mount", "--pid", "--net", "--uts", "--ipc", "--root", "--wd"]
JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1"; shift; done; shift; exec "$@"'


class TestNode:
    """A node. ``shared`` is the same directory for all nodes that are given it."""

    __test__ = False

    def __init__(self, name: str, directory: Path, shared: Path, cpus: float | None = None, memory: int | None = None) -> None:
        self.name = name
        self.directory = directory
        self.shared = shared
        self.groups = Groups(f"systest-{os.getpid()}", name)
        self._limits = (cpus, memory)
        self.init = 0

    def boot(self) -> None:
        """Starts its first process."""
        for part in ("upper/etc/mx", "upper/usr/sbin", "upper/usr/bin", "upper/var/log/mx", "work", "root"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        self._install()
        self.groups.create(*self._limits)
        plan = self.directory / "boot.json"
        plan.write_text(json.dumps(self._plan()))
        boot = ["unshare", "--net", "--", sys.executable, "-ISE", str(BOOT), str(plan)]
        done = subprocess.run(boot, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOOT_SECONDS, check=False)
        assert done.returncode == 0, f"node does not boot: {done.stderr}"
        self.init = int(done.stdout)
        self.run("ip", "link", "set", "lo", "up")  # criu's checks connect to it
        self.run("ip", "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0")
        self.run("ip", "address", "add", f"{ADDRESS}/24", "dev", BRIDGE)
        self.run("ip", "link", "set", BRIDGE, "up")

    def _install(self) -> None:
        """Our packages as they are now, where the image's agent layer has them."""
        upper = self.directory / "upper"
        for package in PACKAGES:
            shutil.copytree(PROJECT / package, upper / "usr/lib/mx" / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(SERVER, upper / "usr/lib/mx/engine_server.py")
        shutil.copyfile(INIT, upper / "usr/sbin/mx-init")
        (upper / "etc/mx/services.json").write_text("[]")
        for name in ("mx-shim", "mx-stdio"):
            entry = upper / "usr/bin" / name
            entry.write_text(agent.entry_script(*agent.ENTRIES[name]))
            entry.chmod(0o755)

    def _plan(self) -> dict[str, Any]:
        image, _ = wanted()
        if not is_built(image) and not image.base_root.is_dir():
            image = ensure()
        return {
            "hostname": self.name,
            "netns": "/proc/self/ns/net",
            "entrances": [str(path) for path in self.groups.entrances],
            "views": [[str(source), name] for source, name in self.groups.views],
            "lower": str(image.base_root),
            "upper": str(self.directory / "upper"),
            "work": str(self.directory / "work"),
            "root": str(self.directory / "root"),
            "binds": [(str(self.shared), "shared")],
            "log": str(self.directory / "upper/var/log/mx/init.log"),
        }

    def command(self, *command: str) -> list[str]:
        """A command of the host that runs ``command`` as a daemon of the node."""
        entrances = [str(path) for path in self.groups.entrances]
        return ["sh", "-c", JOIN, "sh", *entrances, "--", "nsenter", f"--target={self.init}", *NAMESPACES, "--", *command]

    def run(self, *command: str) -> str:
        """Its output; the test fails when it fails."""
        return subprocess.run(self.command(*command), capture_output=True, text=True, timeout=60, check=True).stdout

    def path(self, inside: str) -> Path:
        """A path of the node as the host can open it."""
        return Path(f"/proc/{self.init}/root{inside}")

    def remains(self) -> dict[str, list[str]]:
        """What a sandbox could leave behind: processes, control groups, mounts, files."""
        groups = [str(path) for top in self.groups.directories for path in sorted((top / "jobs").iterdir()) if path.is_dir()]
        copies = self.path("/run/mx/copies")
        return {
            "processes": sorted(name.split()[-1] for name in self.run("ps", "-eo", "args=").splitlines() if "ps -eo" not in name),
            "groups": groups,
            "mounts": self.path("/proc/1/mounts").read_text().splitlines(),
            "copies": sorted(path.name for path in copies.iterdir()) if copies.is_dir() else [],
            "links": sorted(path.name for path in self.path("/sys/class/net").iterdir()),
            "sockets": [line for line in self.path("/proc/1/net/unix").read_text().splitlines() if "control" in line],
        }

    def down(self) -> None:
        """Ends everything on it and removes its groups."""
        self.groups.kill(10.0)
        self.groups.remove()

    def shut(self) -> None:
        """After the last node: removes the groups above."""
        Groups(f"systest-{os.getpid()}").remove()


class RemoteEngine:
    """The engine in an agent's process on the node; the same interface as ``nodeagent.engine.Engine``."""

    def __init__(self, node: TestNode) -> None:
        self.node = node
        self.fences = True
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0

    async def connect(self) -> "RemoteEngine":
        """Starts the process."""
        env = f"PYTHONPATH=/usr/lib/mx:/{DEPENDENCIES}"
        program = ["env", env, "python3", "/usr/lib/mx/engine_server.py"]
        self.process = await asyncio.create_subprocess_exec(
            *self.node.command(*program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 24
        )
        self._reader = asyncio.ensure_future(self._read())
        return self

    async def crash(self) -> None:
        """The agent dies as with kill -9. ``nsenter`` is only its parent."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in children:
            os.kill(int(pid), signal.SIGKILL)
        await self.process.wait()
        await self._reader

    async def close(self) -> None:
        """Ends the process, if it has not ended."""
        if self.process.returncode is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            await self.process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            answer = json.loads(line)
            future = self._waiting.pop(answer["id"])
            if not future.done():
                self._settle(future, answer)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the agent died"))

    def _settle(self, future: "asyncio.Future[Any]", answer: dict[str, Any]) -> None:
        if "error" not in answer:
            future.set_result(answer["result"])
        elif answer["error"] == "StartFailed":
            future.set_exception(errors.StartFailed(answer["message"], answer["code"]))
        else:
            kinds = {"CancelledError": RuntimeError("cancelled on the node")}
            known = getattr(errors, answer["error"], None)
            future.set_exception(known(answer["message"]) if known else kinds[answer["error"]])

    async def call(self, method: str, on: int | None = None, **values: Any) -> Any:
        """One call; cancelling it cancels it on the node and waits for that."""
        self._number += 1
        number = self._number
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send({"id": number, "call": method, "on": on, "with": values})
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._send({"cancel": number})
            await asyncio.wait([future], timeout=30)
            raise

    def _send(self, data: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(data).encode() + b"\n")

    async def fence(self) -> list[str]:
        return [str(line) for line in await self.call("fence")]

    async def version(self) -> str:
        return str(await self.call("version"))

    async def features(self) -> list[str]:
        return list(await self.call("features"))

    async def create(self, copy: Copy, network: Network | None = None) -> "RemoteSandbox":
        data = asdict(network) if network else None
        return RemoteSandbox(self, copy, await self.call("create", copy=asdict(copy), network=data))

    async def wires(self) -> tuple[Any, Any]:
        """Both ends of a new wire."""
        out, into = await self.call("wires")
        return RemoteWire(out), RemoteWire(into)

    async def wire(self, path: str, *, listen: bool) -> Any:
        """An end of a wire that goes by a socket on the shared file system; to be called for both ends at once."""
        return RemoteWire(await self.call("wire", path=path, listen=listen))

    async def adopt(self, copy: Copy) -> "RemoteSandbox | None":
        number = await self.call("adopt", copy=asdict(copy))
        return None if number is None else RemoteSandbox(self, copy, number)

    async def leftovers(self) -> list[Copy]:
        return [Copy(**data) for data in await self.call("leftovers")]

    async def forget(self, copy: Copy) -> None:
        await self.call("forget", copy=asdict(copy))


class RemoteWire:
    """One end of a wire that lies on the node, in the agent; it is closed there once it was used."""

    def __init__(self, number: int) -> None:
        self.number = number

    @property
    def sock(self) -> "RemoteWire":
        return self

    def close(self) -> None:
        """The server does that."""


class RemoteSandbox:
    """A sandbox of a remote engine. Paths of images are those the node sees: they lie on its /run."""

    def __init__(self, engine: RemoteEngine, copy: Copy, number: int) -> None:
        self.copy = copy
        self._engine, self._number = engine, number

    async def _call(self, method: str, **values: Any) -> Any:
        return await self._engine.call(method, self._number, **values)

    def _inside(self, images: Path) -> str:
        text = str(images)
        return text.removeprefix(str(self._engine.node.path("")))

    async def start(self, spec: JobSpec, env: dict[str, str]) -> None:
        await self._call("start", spec=spec.to_data(), env=env)

    async def copy_ahead(self, file: Path, most: int) -> None:
        await self._call("copy_ahead", file=self._inside(file), most=most)

    async def pre_dump(self, images: Path, parent: str | None, *, deadline: float) -> None:
        await self._call("pre_dump", images=self._inside(images), parent=parent, deadline=deadline)

    async def dump(self, images: Path, *, deadline: float, parent: str | None = None) -> None:
        await self._call("dump", images=self._inside(images), deadline=deadline, parent=parent)

    async def expect(self) -> None:
        await self._call("expect")

    async def serve(self, images: Path, wire: Any, *, deadline: float) -> None:
        await self._call("serve", images=self._inside(images), wire=wire.number, deadline=deadline)

    async def sever(self) -> None:
        await self._call("sever")

    async def streamed(self) -> None:
        await self._call("streamed")

    async def restore(self, images: Path, *, last_pid: int, deadline: float, wire: Any = None) -> None:
        more = {"wire": wire.number} if wire else {}
        await self._call("restore", images=self._inside(images), last_pid=last_pid, deadline=deadline, **more)

    async def resume(self) -> None:
        await self._call("resume")

    async def frozen(self) -> bool:
        return bool(await self._call("frozen"))

    async def last_pid(self) -> int:
        return int(await self._call("last_pid"))

    async def usage(self) -> Usage:
        return Usage(**await self._call("usage"))

    async def weigh(self, weight: int) -> None:
        await self._call("weigh", weight=weight)

    async def obstacles(self, *, thorough: bool) -> list[Obstacle]:
        return [Obstacle.model_validate(data) for data in await self._call("obstacles", thorough=thorough)]

    async def files(self) -> list[str]:
        return [str(path) for path in await self._call("files")]

    async def wait_exit(self) -> Exit:
        data = await self._call("wait_exit")
        return Exit(data["code"], datetime.fromisoformat(data["time"]), data["fenced"])

    async def attach(self) -> None:
        """On the node; what is said there is read by nobody."""
        await self._call("attach")

    async def signal(self, number: int) -> None:
        await self._call("signal", number=number)

    async def obey(self, policy: Fencing) -> None:
        await self._call("obey", policy=str(policy))

    async def fenced(self) -> bool:
        return bool(await self._call("fenced"))

    async def thaw(self) -> None:
        await self._call("thaw")

    async def kill(self) -> None:
        await self._call("kill")
