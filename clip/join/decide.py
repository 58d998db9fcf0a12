"""Whether a machine gets a certificate, and as which node. Pure.

By rule: it shows the token that stood in our boot answer for a declared node, or that a person gave it for a node. By hand: a
person approved it, with the key it asked with. Nobody takes the place of a node that is alive: its heartbeat has to end first.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from clip.tokens import Token
from crds.join import JoinRecord, Proof


@dataclass(frozen=True, slots=True)
class Question:
    """A machine's request, and what is known about it. ``key`` is the digest of its public key."""

    mac: str
    key: str
    token: Token | None
    no_token: str
    """Why the token does not do, when there is none."""
    record: JoinRecord | None
    nodes: Mapping[str, str | None]
    """All nodes and their MACs."""
    alive: frozenset[str]
    """Nodes with a heartbeat."""
    refused: bool = False
    """People do not want this machine."""
    address: str = ""
    """From which it asks."""
    home: str | None = None
    """Address of the node that its token names; None: nobody says."""


@dataclass(frozen=True, slots=True)
class Sign:
    """It gets a certificate as that node, which is to be declared first if nobody has."""

    node: str
    proof: Proof
    declare: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """It may ask again."""

    reason: str
    proof: Proof


@dataclass(frozen=True, slots=True)
class Refuse:
    """It need not ask again."""

    reason: str


def decide(asked: Question) -> Sign | Wait | Refuse:
    """The answer to a machine."""
    who = f"machine {asked.mac}"
    if asked.refused:
        return Refuse(f"{who}: it was refused by hand: mxctl approve node {asked.mac} --name NAME takes that back")
    known = asked.record if asked.record and asked.record.key == asked.key else None
    if asked.token is not None:
        proof, node = asked.token.proof, asked.token.node
    elif known is not None:
        proof, node = known.proof, known.node
    else:
        return Refuse(asked.no_token)
    node = node or (known.approved if known else None)
    if node is None:
        return Wait(f"{who}: waits for approval: mxctl approve node {asked.mac} --name NAME", proof)
    return _as_node(asked, who, node, proof, known)


def _as_node(asked: Question, who: str, node: str, proof: Proof, known: JoinRecord | None) -> Sign | Wait | Refuse:
    holder = next((name for name, mac in asked.nodes.items() if mac == asked.mac and name != node), None)
    if holder is not None:
        return Refuse(f"{who}: it is node {holder}, not {node}: delete node {holder} first, or join as {holder}")
    there = asked.nodes.get(node)
    if there is not None and there != asked.mac:
        return Refuse(f"{who}: node {node} is another machine ({there}): choose another name")
    if node not in asked.nodes and proof is Proof.BOOTED:
        return Refuse(f"{who}: node {node} is not declared any more: approve the machine again")
    if proof is Proof.BOOTED and asked.home is not None and asked.address != asked.home:
        return Refuse(f"{who}: node {node} boots as {asked.home}, but {asked.address} asks: boot the machine again")
    if node in asked.alive and (known is None or known.node not in (None, node)):
        return Wait(f"{who}: node {node} has a heartbeat: it joins when that has ended", proof)
    return Sign(node, proof, declare=node not in asked.nodes)
