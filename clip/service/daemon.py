"""Ties it together: informers -> table -> files and answers; messages of machines -> records."""

import asyncio
import logging
from functools import partial

from aiohttp import web

from clip.builder import Builder
from clip.errors import ClipError
from clip.images import Images, layer_owner
from clip.power.drivers import make_driver
from clip.power.switchboard import Switchboard, on_machines
from clip.service import dhcplog
from clip.service.config import Config
from clip.service.files import write_all
from clip.service.ledger import Ledger
from clip.service.tables import current_table
from clip.service.web import Web
from clip.table import Table
from clip.tokens import Tokens
from crds import keys
from crds.cluster import Cluster
from crds.image import Image
from crds.node import Node
from store.informer import Informer
from store.kv import KV, KeyValue
from store.objects import utcnow
from store.store import Store

log = logging.getLogger(__name__)

GATHER = 0.05  # seconds in which changes are gathered
RETRY = 2.0
KINDS = (Node, Cluster, Image)


class Clip:
    """``run`` serves until it is cancelled. One per cluster."""

    def __init__(self, config: Config, kv: KV) -> None:
        self._config = config
        self._objects = [Informer(kv, keys.kind_prefix(kind)) for kind in KINDS]
        self._refusals = Informer(kv, keys.REFUSALS)
        self._ledger = Ledger(kv, utcnow)
        self._web = Web(config, self._ledger.hear, Tokens(config.tokens))
        self._changed = asyncio.Event()
        self._switchboard = Switchboard(kv, partial(make_driver, credentials=config.power), utcnow, on_machines)
        builder = Builder(state=config.images.parent)
        self._images = Images(Store(kv), builder, layer_owner(config.cluster))

    async def run(self) -> None:
        """Until cancelled."""
        runner = web.AppRunner(self._web.application(), access_log=None)
        await runner.setup()
        try:
            async with asyncio.TaskGroup() as group:
                for informer in (*self._objects, self._refusals):
                    informer.subscribe(self._notice)
                    group.create_task(informer.run())
                await web.TCPSite(runner, self._config.server, self._config.http_port).start()
                group.create_task(self._ledger.run())
                group.create_task(dhcplog.follow(self._config.dnsmasq_log, self._ledger.hear))
                group.create_task(self._keep_files())
                group.create_task(self._switchboard.run())
                group.create_task(self._images.run())
        finally:
            await runner.cleanup()

    def _notice(self, _key: str, _old: KeyValue | None, _new: KeyValue | None) -> None:
        self._changed.set()

    async def _keep_files(self) -> None:
        """Files and answers follow the cluster. What cannot be written is tried again; machines get the old answer meanwhile."""
        for informer in (*self._objects, self._refusals):
            await informer.synced.wait()
        last: Table | None = None
        while True:
            self._changed.clear()
            nodes, clusters, images = self._objects
            table = current_table(self._config, nodes, clusters, images, self._refusals)
            if table != last:
                try:
                    changed = await asyncio.to_thread(write_all, self._config, table)
                except (ClipError, OSError) as error:
                    log.error("files of the boot service: not written, trying again: %s", error)
                    await asyncio.sleep(RETRY)
                    continue
                log.info("%d machines are served, %d cannot be; changed: %s", len(table.rows), len(table.problems), changed)
                self._web.use(table, nodes_with_problems(nodes, table))
                last = table
            await self._changed.wait()
            await asyncio.sleep(GATHER)


def nodes_with_problems(nodes: Informer, table: Table) -> dict[str, tuple[str, str]]:
    """MAC -> node and problem. A card that is another node's, too, is served as that one."""
    served = {row.mac for row in table.rows}
    found = {}
    for node in nodes.list(Node).items:
        if node.spec.mac is not None and node.name in table.problems and node.spec.mac not in served:
            found[node.spec.mac] = (node.name, table.problems[node.name])
    return found
