"""How a machine that the head booted gets its certificate: by the token in its kernel's command line.

Its key lies in memory only: on the head's disk, over NFS, others could read it. So each boot makes a new key, and the certificate
of the boot before is worthless from then on. A token that was used up or has ended is no end: the boot service gives another one.
"""

import asyncio
import http.client
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from nodeagent.errors import AgentError
from nodeagent.joining import OK, SECONDS, Head, Invitation, NotAdmitted, facts_of_machine, knock, put

log = logging.getLogger(__name__)

PAUSE, REFUSED_PAUSE = 1.0, 10.0  # seconds until it asks again


@dataclass(frozen=True, slots=True)
class Booted:
    """What the kernel's command line says: how to get a certificate, and the boot service, host:port."""

    invited: Invitation
    service: str


def read_line(line: str) -> Booted | None:
    """None: nobody invited us, somebody else puts the certificate there. AgentError when a part is missing."""
    words = dict(word.split("=", 1) for word in line.split() if word.startswith("mx.") and "=" in word)
    mac, service = words.get("mx.mac", ""), f"{words.get('mx.server', '')}:{words.get('mx.http', '')}"
    if "mx.server" not in words:
        return None
    if not mac or "mx.http" not in words:
        raise AgentError("kernel's command line: it has mx.server, but not mx.mac and mx.http: boot the machine again")
    return Booted(_invitation(words, mac), service)


def _invitation(words: dict[str, str], mac: str) -> Invitation:
    return Invitation(Head(words.get("mx.join", ""), words.get("mx.ca", "")), words.get("mx.token", ""), mac)


async def until_admitted(directory: Path, booted: Booted) -> str:
    """Until DIRECTORY has a certificate for the request that lies there; returns mx-join's host:port, empty when nobody says.

    Somebody else may put the certificate there. OSError of the disk only."""
    csr = (directory / "node.csr").read_text(encoding="utf-8")
    told = ""
    while not (directory / "node.crt").exists():
        reason, pause = await _attempt(directory, booted.invited, csr)
        if not reason:
            break
        if reason != told:
            log.warning("no certificate yet: %s", reason)
            await asyncio.to_thread(_tell, booted, reason)
        told = reason
        await asyncio.sleep(pause)
        if pause == REFUSED_PAUSE:
            booted = await asyncio.to_thread(_invited_again, booted)
    if told:
        await asyncio.to_thread(_tell, booted, "")
    if not booted.invited.head.address:
        booted = await asyncio.to_thread(_invited_again, booted)
    return booted.invited.head.address


async def _attempt(directory: Path, invited: Invitation, csr: str) -> tuple[str, float]:
    """Why there is none yet, and when to ask again; "" when there is one."""
    if not invited.token:
        return "the boot service gave no token", REFUSED_PAUSE
    try:
        status, answer = await asyncio.to_thread(knock, invited, csr, facts_of_machine())
    except NotAdmitted as error:
        return str(error), REFUSED_PAUSE
    if status != OK:
        return str(answer.get("reason", f"status {status}")), PAUSE
    await asyncio.to_thread(put, directory, answer)
    return "", 0.0


def _invited_again(booted: Booted) -> Booted:
    """With another token; as it was, when there is none to be had now."""
    try:
        status, text = _get(booted, f"/invitation?mac={quote(booted.invited.mac)}")
    except (OSError, http.client.HTTPException) as error:
        log.info("no other token: %s", error)
        return booted
    if status != OK:
        log.info("no other token: %s", text.strip()[:200])
        return booted
    words = dict(word.split("=", 1) for word in text.split() if "=" in word)
    return replace(booted, invited=_invitation(words, booted.invited.mac))


def _tell(booted: Booted, problem: str) -> None:
    """To people, by the head; nobody relies on it."""
    try:
        _get(booted, f"/event?mac={quote(booted.invited.mac)}&problem={quote(problem)}")
    except (OSError, http.client.HTTPException) as error:
        log.info("the head was not told: %s", error)


def _get(booted: Booted, path: str) -> tuple[int, str]:
    host, _, port = booted.service.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(10_000).decode(errors="replace")
    finally:
        connection.close()
