"""HTTP for machines that boot: what to boot, kernel and initramfs, and what they tell of themselves.

    /start                         an iPXE script: ask /boot
    /boot?mac=…                    an iPXE script: boot this, or wait
    /images/<boot layer>/<file>    kernel or initramfs
    /invitation?mac=…              the words of its kernel line by which it gets its certificate, with another token
    /event?mac=…&stage=root        how far a machine came, or what its problem is

Answers come from memory, so machines boot also while etcd is away. Who asks may be anybody, and nothing secret is served but a
machine's token, which is for this boot only and given to nobody but whoever asks from that machine's address.
"""

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from clip.initramfs import BOOT, INITRD, KERNEL
from clip.render import ipxe
from clip.render.checks import RenderError, mac
from clip.service.config import Config
from clip.service.sighting import Message
from clip.table import Row, Table
from clip.tokens import Tokens

log = logging.getLogger(__name__)

_FACTS = ("vendor", "product", "serial", "uuid", "firmware", "modules", "large", "cores", "memory", "cpus")
_TOLD_STAGES = ("root",)


class Web:
    """The handlers. ``table`` is set whenever the cluster changes; until it is known first, machines are told to wait."""

    def __init__(self, config: Config, hear: Callable[[Message], None], tokens: Tokens) -> None:
        self.table: Table | None = None
        self._by_mac: dict[str, Row] = {}
        self._problems: dict[str, tuple[str, str]] = {}
        self._config = config
        self._hear = hear
        self._tokens = tokens

    def application(self) -> web.Application:
        """For a runner."""
        application = web.Application()
        application.router.add_get("/start", self.start)
        application.router.add_get("/boot", self.boot)
        application.router.add_get("/invitation", self.invitation)
        application.router.add_get("/event", self.event)
        application.router.add_get("/images/{layer}/{file}", self.image)
        return application

    def use(self, table: Table, macs_of_problems: dict[str, tuple[str, str]]) -> None:
        """From now on. ``macs_of_problems``: MAC -> node and problem, of nodes that cannot be served."""
        self.table = table
        self._by_mac = {row.mac: row for row in table.rows}
        self._problems = macs_of_problems

    async def start(self, _request: web.Request) -> web.Response:
        """Where to ask."""
        return web.Response(text=ipxe.start_script(self._config.boot_settings))

    async def boot(self, request: web.Request) -> web.Response:
        """What to boot."""
        asked = _mac_of(request)
        row = self._by_mac.get(asked)
        held = self._problems.get(asked)
        told = Message(
            asked,
            stage="ipxe",
            address=request.query.get("ip", ""),
            node=row.name if row else held[0] if held else "",
            digest=row.revision.digest if row else "",
            problem=held[1] if held else "",
            facts={name: request.query[name] for name in _FACTS if name in request.query},
        )
        self._hear(told)
        return web.Response(text=self._script(asked, row, await self._token(row, request.remote) if row else ""))

    async def invitation(self, request: web.Request) -> web.Response:
        """For a machine whose token was used up or has ended before it had a certificate."""
        row = self._by_mac.get(_mac_of(request))
        token = await self._token(row, request.remote) if row else ""
        if not token:
            raise web.HTTPForbidden(text=f"{request.remote} is not the address of that machine\n")
        return web.Response(text=ipxe.invitation(self._config.boot_settings, token) + "\n")

    async def _token(self, row: Row, caller: str | None) -> str:
        """Empty when it gets none, or none can be had now: it boots all the same, and asks again later."""
        if not self._config.join:
            return ""
        if caller != row.address and not self._config.proxy:  # beside another DHCP server its address is its own only later
            log.warning("%s asks what %s boots, which is %s at %s: it gets no token", caller, row.mac, row.name, row.address)
            return ""
        try:
            return await asyncio.to_thread(self._tokens.for_boot, row.mac, row.name)
        except (OSError, ValueError) as error:
            log.error("node %s (%s): boots without a token: %s", row.name, row.mac, error)
            return ""

    def _script(self, asked: str, row: Row | None, token: str) -> str:
        settings = self._config.boot_settings
        if self.table is None:
            return ipxe.stuck_script(settings, "unknown", "the head does not know the cluster yet")
        if row is not None:
            return ipxe.boot_script(settings, self.table, row, token)
        if asked in self._problems:
            return ipxe.stuck_script(settings, *self._problems[asked])
        if asked in self.table.refused:
            return ipxe.refused_script(settings, asked)
        return ipxe.hold_script(settings, asked)

    async def event(self, request: web.Request) -> web.Response:
        """A machine tells; nothing is answered."""
        stage = request.query.get("stage", "")
        if stage not in ("", *_TOLD_STAGES):
            raise web.HTTPBadRequest(text=f"there is no stage {stage!r}\n")
        facts = {name: request.query[name] for name in _FACTS if name in request.query}
        self._hear(Message(_mac_of(request), stage=stage, problem=request.query.get("problem"), facts=facts))
        return web.Response(status=204)

    async def image(self, request: web.Request) -> web.FileResponse:
        """Kernel or initramfs of a boot layer."""
        layer, file = request.match_info["layer"], request.match_info["file"]
        path = self._config.images / layer / "root" / file
        if not layer.startswith(BOOT) or "/" in layer or file not in (KERNEL, INITRD) or not path.is_file():
            raise web.HTTPNotFound(text=f"no {layer}/{file} here\n")
        if file == KERNEL and "mac" in request.query:
            self._hear(Message(_mac_of(request), stage="kernel"))
        return web.FileResponse(path, chunk_size=1 << 20)


def _mac_of(request: web.Request) -> str:
    try:
        return mac(request.query.get("mac", "").lower())
    except RenderError as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from error
