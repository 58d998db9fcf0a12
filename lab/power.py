"""Power of a lab's nodes: the driver ``lab``, and the process that acts on what is asked for (mxctl lab power).

A node made of namespaces cannot load another kernel, but all else is as with a real machine: it is cut off hard, and comes up with
the layers of the revision it is assigned.
"""

import asyncio
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from clip.cache import Shelf
from clip.power.driver import Driver, PowerError
from clip.power.drivers import make_driver
from clip.power.qmp import QmpDriver
from clip.power.switchboard import Switchboard
from crds.image import Image
from crds.node import Node
from crds.power import PowerDriver, PowerState
from lab import cluster
from lab.errors import LabError
from lab.machine import SOCKET
from lab.model import Boot, Places
from lab.node import is_on
from lab.ready import context_of
from store.context import connect
from store.errors import NotFound, StoreError
from store.kv import KV
from store.objects import utcnow
from store.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LabDriver:
    """One node of the lab."""

    places: Places
    node: Node
    store: Store

    async def status(self) -> PowerState:
        return PowerState.ON if await asyncio.to_thread(self._is_on) else PowerState.OFF

    async def on(self) -> None:
        if not await asyncio.to_thread(self._is_on):
            await self._start()

    async def off(self) -> None:
        try:
            await asyncio.to_thread(cluster.stop_node, self.places.lab, self.node.name, hard=True)
        except LabError as error:
            raise PowerError(f"{self.node.label}: {error}") from error

    async def reset(self) -> None:
        await self.off()
        await self._start()

    async def boot_from_network(self) -> None:
        """It has nothing else."""

    def _is_on(self) -> bool:
        try:
            return is_on(self.places.load().node(self.node.name))
        except LabError as error:
            raise PowerError(f"{self.node.label}: {error}") from error

    async def _start(self) -> None:
        boot = await self._boot()
        try:
            await asyncio.to_thread(cluster.switch_on, self.places.lab, self.node.name, boot)
        except LabError as error:
            raise PowerError(f"{self.node.label}: {error}") from error

    async def _boot(self) -> Boot | None:
        """What it is assigned; None: what the lab was made with."""
        assigned = self.node.status.assigned
        if assigned is None:
            return None
        try:
            image = await self.store.get(Image, assigned.image)
        except NotFound as error:
            raise PowerError(f"{self.node.label}: image/{assigned.image}, which it is assigned, does not exist") from error
        revision = image.status.of_digest(assigned.revision)
        if revision is None:
            raise PowerError(f"{self.node.label}: {image.label} has no revision {assigned.revision}")
        shelf = Shelf.of(self.places.state)
        for layer in revision.layers:
            if not shelf.root(layer).is_dir():
                raise PowerError(f"{self.node.label}: layer {layer} of {image.label} is not on the shelf")
        return Boot(layers=revision.layers, image=revision.digest, assigned=assigned.digest)


async def serve(name: str) -> None:
    """Acts on requests for the power of the lab's nodes until cancelled. LabError, StoreError."""
    places = Places(name)
    places.load()
    kv = await connect(context_of(places))
    try:
        await Switchboard(kv, lambda node: driver_of(places, node, kv), utcnow).run()
    finally:
        await kv.close()


def main(arguments: Sequence[str]) -> int:
    """``python -m lab.power LAB``. Ends with the lab (lab/switch.py); 1 and one line when it cannot begin."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    try:
        asyncio.run(serve(arguments[0]))
    except (LabError, StoreError) as error:
        print(error, file=sys.stderr)
    return 1


def driver_of(places: Places, node: Node, kv: KV) -> Driver:
    """The lab's own, or any other that the node names. PowerError."""
    if node.spec.power is None or node.spec.power.driver != PowerDriver.LAB:
        return make_driver(node)
    try:
        is_machine = places.load().node(node.name).machine is not None
    except LabError as error:
        raise PowerError(f"{node.label}: {error}") from error
    return QmpDriver(str(places.node(node.name) / "machine" / SOCKET)) if is_machine else LabDriver(places, node, Store(kv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
