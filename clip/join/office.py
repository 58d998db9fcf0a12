"""Answers machines that want to join: reads what is known, decides, writes it down, signs."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from clip.authority import AuthorityError, read_request
from clip.join.decide import Question, Refuse, Sign, Wait, decide
from clip.registry import Contested, Registry
from clip.tokens import Token, TokenRefused, Tokens
from crds import keys
from crds.join import JoinFacts, JoinRecord, JoinState
from crds.machine import Mac
from crds.meta import Metadata, Model, find_condition
from crds.node import LEAVING, Node, NodeSpec
from store.errors import AlreadyExists, Invalid, NotFound, StoreError
from store.kv import KV
from store.store import Store

log = logging.getLogger(__name__)


class Asking(Model):
    """POST /join."""

    mac: Mac
    """Of the network card with which the machine reaches us."""
    token: str = Field(default="", max_length=200)
    """As it was given."""
    csr: str = Field(max_length=10_000)
    """Its request, PEM."""
    facts: JoinFacts = Field(default_factory=JoinFacts)
    """What it says of itself."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and what goes with it."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cluster:
    """What whoever joins must know."""

    endpoints: str
    """etcd, as nodes reach it."""
    shared: str = ""
    """What nodes mount at /shared, SERVER:/PATH; empty when that is not ours to say."""


class Office:
    """One per head. What fails meanwhile is an answer, too: the machine asks again."""

    def __init__(
        self,
        kv: KV,
        registry: Registry,
        tokens: Tokens,
        cluster: Cluster,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kv = kv
        self.registry = registry
        self.tokens = tokens
        self._cluster = cluster
        self._clock = clock

    async def join(self, asking: Asking, address: str) -> Answer:
        """200 with the certificate, 202 while it has to wait, 403 with the reason."""
        try:
            return await self._join(asking, address)
        except (AuthorityError, Invalid) as error:
            return _refusal(str(error))
        except (StoreError, Contested, OSError) as error:
            log.warning("machine %s: asked to join, cannot be answered: %s", asking.mac, error)
            return Answer(503, {"reason": f"machine {asking.mac}: not now: {error}"})

    async def renew(self, node: str, csr: str) -> Answer:
        """For one who proved by its certificate that it is this node."""
        request = csr.encode()
        try:
            key = read_request(request, node).digest
            for kv in (await self._kv.list(keys.JOINS)).items:
                mac = kv.key.removeprefix(keys.JOINS)
                record, _ = await self.registry.record(mac)
                if record is not None and record.node == node and record.key == key:
                    return self._granted(node, await self.registry.issue(request, node, mac, record.proof))
        except AuthorityError as error:
            return _refusal(str(error))
        except (StoreError, Contested, OSError) as error:
            return Answer(503, {"reason": f"node {node}: not now: {error}"})
        return _refusal(f"node {node}: this key is not known any more: the node has to join again")

    async def leave(self, node: str, *, revoked: bool = False) -> Answer:
        """For a node that wants to go: its Node is deleted, others see to the rest. 202 until nothing of it is left, then 200.

        Who has a ``revoked`` certificate may go on asking, and deletes nothing: by now the name may be another machine's."""
        try:
            store = Store(self._kv)
            try:
                there = await store.get(Node, node)
            except NotFound:
                waits = any(record.node == node for record in await self.registry.records())
                return (
                    Answer(202, {"reason": f"node {node}: its certificate is taken back"}) if waits else Answer(200, {"node": node})
                )
            if there.metadata.deletion_timestamp is None:
                if revoked:
                    return Answer(200, {"node": node})
                await store.delete(Node, node, uid=there.metadata.uid)
            condition = find_condition(there.status.conditions, LEAVING)
            return Answer(202, {"reason": f"node {node}: {condition.message if condition else 'is told to leave'}"})
        except StoreError as error:
            return Answer(503, {"reason": f"node {node}: not now: {error}"})

    async def _join(self, asking: Asking, address: str) -> Answer:
        key = read_request(asking.csr.encode(), asking.mac).digest
        token, no_token = await asyncio.to_thread(self._use, asking, key)
        record, revision = await self.registry.record(asking.mac)
        nodes = {node.name: node.spec for node in (await Store(self._kv).list(Node)).items}
        named = nodes.get(token.node) if token and token.node else None
        question = Question(
            mac=asking.mac,
            key=key,
            token=token,
            no_token=no_token,
            record=record,
            nodes={name: spec.mac for name, spec in nodes.items()},
            alive=await self._alive(token, record),
            refused=await self._kv.get(keys.refusal(asking.mac)) is not None,
            address=address,
            home=named.address if named else None,
        )
        match decide(question):
            case Refuse(reason):
                return _refusal(reason)
            case Wait(reason, proof):
                same = record if record and record.key == key else None
                waiting = JoinRecord(
                    state=JoinState.WAITING,
                    reason=reason,
                    proof=proof,
                    key=key,
                    node=token.node if token else same.node if same else None,
                    approved=same.approved if same else None,
                    asked=same.asked if same else self._clock(),
                    facts=asking.facts.model_copy(update={"address": address}),
                    certificates=record.certificates if record else [],
                )
                if waiting != record:
                    await self.registry.note(asking.mac, waiting, revision)
                return Answer(202, {"reason": reason})
            case Sign(node, proof, declare):
                if declare:
                    await self._declare(node, asking.mac, address)
                facts = asking.facts.model_copy(update={"address": address})
                issued = await self.registry.issue(asking.csr.encode(), node, asking.mac, proof, facts)
                return self._granted(node, issued)

    def _use(self, asking: Asking, key: str) -> tuple[Token | None, str]:
        if not asking.token:
            return None, f"machine {asking.mac}: it shows no token: boot it, or give it one by mxctl token create"
        try:
            return self.tokens.use(asking.token, asking.mac, key), ""
        except TokenRefused as error:
            return None, str(error)

    async def _alive(self, token: Token | None, record: JoinRecord | None) -> frozenset[str]:
        names = {token.node if token else None, record.node if record else None, record.approved if record else None}
        return frozenset([name for name in names if name and await self._kv.get(keys.alive(name))])

    async def _declare(self, node: str, mac: str, address: str) -> None:
        """A person named it, by the token or by approving it."""
        try:
            await Store(self._kv).create(Node(metadata=Metadata(name=node), spec=NodeSpec(mac=mac, address=address)))
        except AlreadyExists as error:
            raise Contested(f"node {node}: somebody declared it at this moment: ask again") from error

    def _granted(self, node: str, certificate: bytes) -> Answer:
        return Answer(
            200,
            {
                "node": node,
                "certificate": certificate.decode(),
                "ca": self.registry.authority.pem.decode(),
                "endpoints": self._cluster.endpoints,
                "shared": self._cluster.shared,
            },
        )


def _refusal(reason: str) -> Answer:
    log.warning("refused: %s", reason)
    return Answer(403, {"reason": reason})
