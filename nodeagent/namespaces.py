"""The real ``Engine``: makes and finds sandboxes below RUN.

What is on the node for one copy: RUN/copies/<namespace>_<name>_<epoch>_<uid8>/ with copy.json (written first, removed last, so that
nothing is ever without it), shim.json, exit.json when the job has ended, criu's logs; a control group; a shim (sandbox.py).
"""

import json
import logging
from dataclasses import asdict
from pathlib import Path

from crds.network import FEATURE
from nodeagent import criu, guard, links, shimlink
from nodeagent.cgroups import Cgroups, JobGroup
from nodeagent.engine import Copy, Network
from nodeagent.errors import EngineFailed
from nodeagent.features import find_features
from nodeagent.jobdir import SCRATCH, job_directory
from nodeagent.links import BRIDGE
from nodeagent.sandbox import NamespaceSandbox, remove_record
from nodeagent.shim.kernel import write_atomically
from nodeagent.shimlink import ShimLink

log = logging.getLogger(__name__)


class NamespaceEngine:
    """Makes and finds sandboxes below ``run`` (a tmpfs); job directories lie below ``shared``."""

    def __init__(
        self, run: Path, shared: Path, cgroups: Cgroups | None = None, program: criu.Criu | None = None, bridge: str = BRIDGE
    ) -> None:
        self.run, self.shared, self.bridge = run, shared, bridge
        self.cgroups = cgroups or Cgroups()
        self._copies = run / "copies"
        self._criu = program or criu.Criu()
        self._tried: list[str] | None = None

    @property
    def fences(self) -> bool:
        """Whether there is a freezer."""
        return self.cgroups.freezer.works

    async def fence(self) -> list[str]:
        """Freezes or kills every copy by its policy, as the guard does."""
        return guard.fence(str(self.run), self.cgroups.freezer)

    async def version(self) -> str:
        """criu's version; EngineFailed with the reason when it does not work here."""
        return await self._criu.version()

    async def features(self) -> list[str]:
        """Ways of moving, tried once; ``network`` when there is a bridge to plug jobs in."""
        if self._tried is None:
            self._tried = await find_features(self._criu)
        features = list(self._tried)
        if not links.is_bridge(self.bridge):
            log.warning("there is no bridge %s: jobs with a network of their own cannot run here; see --bridge", self.bridge)
            return features
        return [*features, FEATURE]

    async def create(self, copy: Copy, network: Network | None = None) -> NamespaceSandbox:
        """A fresh sandbox; whatever has the same namespace, name and epoch is ended first."""
        for old in await self.leftovers():
            if (old.namespace, old.name, old.epoch) == (copy.namespace, copy.name, copy.epoch):
                await self.forget(old)
        group = self.cgroups.group(copy)
        await group.remove()
        run_dir = self._directory(copy)
        try:
            tmp, shm = self._make_directories(copy)
            group.create()
            wire = links.arguments(copy, network, self.bridge) if network else ()
            if network:
                (run_dir / guard.PORT).write_text(links.port_of(copy))
            identity = await shimlink.launch(self.run, run_dir, tmp, shm, wire)
        except (OSError, EngineFailed) as error:
            await self.forget(copy)
            raise EngineFailed(f"{copy.key}: no sandbox: {error}") from error
        return self._sandbox(copy, ShimLink(run_dir, identity, copy.key))

    async def adopt(self, copy: Copy) -> NamespaceSandbox | None:
        """The living sandbox, or the one whose exit is recorded. A criu still under way is made to give up first."""
        run_dir = self._directory(copy)
        link = ShimLink(run_dir, shimlink.read_identity(run_dir), copy.key)
        if not link.lives and not (run_dir / "exit.json").exists():
            return None
        sandbox = self._sandbox(copy, link)
        await sandbox.settle()
        return sandbox

    async def leftovers(self) -> list[Copy]:
        """All copies of which something is here. Control groups that nobody wrote down are emptied and removed."""
        copies = [Copy(**json.loads(path.read_text())) for path in sorted(self._copies.glob("*/copy.json"))]
        for name in self.cgroups.names() - {self.cgroups.group(copy).name for copy in copies}:
            log.warning("control group %s belongs to no copy, removing it", name)
            await JobGroup(self.cgroups, name).remove()
        for port in links.ports(self.bridge) - {links.port_of(copy) for copy in copies}:
            log.warning("link %s belongs to no copy, removing it", port)
            await links.remove(port)
        return copies

    async def forget(self, copy: Copy) -> None:
        """Kills it if it lives; removes all records of it. Its directory on the shared file system stays."""
        run_dir = self._directory(copy)
        await self._sandbox(copy, ShimLink(run_dir, shimlink.read_identity(run_dir), copy.key)).kill()
        remove_record(run_dir)

    def _directory(self, copy: Copy) -> Path:
        return self._copies / f"{copy.namespace}_{copy.name}_{copy.epoch}_{copy.uid[:8]}"

    def _sandbox(self, copy: Copy, link: ShimLink) -> NamespaceSandbox:
        return NamespaceSandbox(copy, link, self.cgroups.group(copy), job_directory(self.shared, copy), self.run, self.shared)

    def _make_directories(self, copy: Copy) -> tuple[Path, Path]:
        run_dir = self._directory(copy)
        run_dir.mkdir(parents=True)
        run_dir.chmod(0o700)
        write_atomically(str(run_dir / "copy.json"), asdict(copy))
        scratch = [job_directory(self.shared, copy) / name for name in SCRATCH]
        for path in (*scratch, run_dir / "stdio"):  # whoever the job runs as
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o1777)
        return scratch[0], scratch[1]
