"""HTTPS for machines that join and for people who let them. Every answer is a JSON object; refusals have one line, "reason".

GET  /ca       the authority's certificate; whoever asks compares its SHA-256 with what he was told
POST /join     {mac, token, csr, facts} -> 200 {node, certificate, ca, endpoints, shared} | 202 | 403 | 503 {reason}
POST /renew    {csr}, by a node with its certificate -> as /join
POST /leave    {}, by a node -> 202 {reason} while it has jobs, 200 when nothing of it is left
POST /tokens   {node, seconds}, by a person with a certificate -> 200 {token, ca}
"""

import json
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web
from pydantic import Field, ValidationError

from clip.join.office import Asking, Office
from crds.meta import Model, Name
from crds.organisations import ADMINS, NODES
from store.errors import StoreError

log = logging.getLogger(__name__)

JOIN_PORT = 8443
LARGEST = 64 << 10  # bytes of a request


class Renewal(Model):
    """POST /renew."""

    csr: str = Field(max_length=10_000)
    """As at the first time."""


class TokenWish(Model):
    """POST /tokens."""

    node: Name
    """As which node."""
    seconds: float = Field(default=900.0, gt=0, le=86400)
    """How long it is good."""


class JoinWeb:
    """The handlers."""

    def __init__(self, office: Office) -> None:
        self._office = office

    def application(self) -> web.Application:
        """For a runner, behind TLS (``server_context``)."""
        application = web.Application(client_max_size=LARGEST)
        application.router.add_get("/ca", self.ca)
        application.router.add_post("/join", self.join)
        application.router.add_post("/renew", self.renew)
        application.router.add_post("/leave", self.leave)
        application.router.add_post("/tokens", self.tokens)
        return application

    async def ca(self, _request: web.Request) -> web.Response:
        """What everybody may know."""
        return web.Response(body=self._office.registry.authority.pem, content_type="application/x-pem-file")

    async def join(self, request: web.Request) -> web.Response:
        """A machine shows its token."""
        answer = await self._office.join(Asking.model_validate_json(await _body(request, Asking)), request.remote or "")
        return web.json_response(answer.body, status=answer.status)

    async def renew(self, request: web.Request) -> web.Response:
        """A node whose certificate will end."""
        node = await self._node(request)
        answer = await self._office.renew(node, Renewal.model_validate_json(await _body(request, Renewal)).csr)
        return web.json_response(answer.body, status=answer.status)

    async def leave(self, request: web.Request) -> web.Response:
        """A node wants to go, and asks how far that is."""
        node = _holder(request, NODES)
        answer = await self._office.leave(node, revoked=await self._is_revoked(request, node))
        return web.json_response(answer.body, status=answer.status)

    async def tokens(self, request: web.Request) -> web.Response:
        """A person wants one for a machine."""
        who = _holder(request, ADMINS)
        wish = TokenWish.model_validate_json(await _body(request, TokenWish))
        token = self._office.tokens.for_person(wish.node, seconds=wish.seconds)
        log.info("%s made a token for %s, good for %g s", who, wish.node, wish.seconds)
        return web.json_response({"token": token, "ca": self._office.registry.authority.fingerprint})

    async def _node(self, request: web.Request) -> str:
        """Which node the caller is. Raises 401, 403, 503."""
        node = _holder(request, NODES)
        if await self._is_revoked(request, node):
            raise _error(web.HTTPForbidden, f"node {node}: this certificate was taken back: the node has to join again")
        return node

    async def _is_revoked(self, request: web.Request, node: str) -> bool:
        try:
            return await self._office.registry.is_revoked(str(_certificate(request).get("serialNumber", "")))
        except StoreError as error:
            raise _error(web.HTTPServiceUnavailable, f"node {node}: not now: {error}") from error


async def _body(request: web.Request, kind: type[Model]) -> bytes:
    """Raises 400 with what is wrong, in one line."""
    body = await request.read()
    try:
        kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise _error(web.HTTPBadRequest, f"{where}: {first['msg']}") from error
    return body


def _holder(request: web.Request, organisation: str) -> str:
    """Whom the caller's certificate names. Raises 401, 403."""
    subject = _certificate(request).get("subject", ())
    names = {key: value for part in subject for key, value in part} if isinstance(subject, tuple) else {}
    if not names:
        raise _error(web.HTTPUnauthorized, "show a certificate of this cluster")
    if names.get("organizationName") != organisation:
        raise _error(web.HTTPForbidden, f"{names.get('commonName')} is not one of {organisation}")
    return str(names.get("commonName"))


def _certificate(request: web.Request) -> Mapping[str, object]:
    """As Python's ssl module describes it; empty when the caller showed none."""
    transport = request.transport
    return (transport.get_extra_info("peercert") if transport else None) or {}


def _error(kind: type[web.HTTPException], reason: str) -> web.HTTPException:
    return kind(text=json.dumps({"reason": reason}), content_type="application/json")


def server_context(directory: Path, holder: str = "clip") -> ssl.SSLContext:
    """DIRECTORY/ca.crt, <holder>.crt, <holder>.key. Callers may show a certificate of ours, and need not. OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(directory / "ca.crt")
    context.load_cert_chain(directory / f"{holder}.crt", directory / f"{holder}.key")
    return context


async def serve(office: Office, context: ssl.SSLContext, address: str, port: int = JOIN_PORT) -> web.AppRunner:
    """Listens; the caller ends it by ``cleanup``. OSError when the port is taken."""
    runner = web.AppRunner(JoinWeb(office).application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, port, ssl_context=context).start()
    return runner
