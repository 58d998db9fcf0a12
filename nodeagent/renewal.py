"""Keeps the node's certificate from ending: after two thirds of its life the head is asked for the next one, with the one we have.

The key stays, so one file is replaced and nothing ever stands half-way; the connections to etcd and to other agents go over to the
new certificate by themselves, and jobs notice nothing. A head that does not answer is asked again until the very end.
"""

import asyncio
import logging
import ssl
import time
from pathlib import Path

from nodeagent.credentials import openssl
from nodeagent.errors import AgentError
from nodeagent.joining import OK, Head, ask, put

log = logging.getLogger(__name__)

LONGEST_SLEEP = 3600.0  # the file may be replaced by somebody else, and clocks may be set
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0  # seconds after a failure


async def keep_certificate(directory: Path, head: str) -> None:
    """Until cancelled. ``head`` is host:port of mx-join; ``directory`` holds the files of credentials.py."""
    pause = FIRST_PAUSE
    while True:
        try:
            wait = await due(directory) - time.time()
            if wait > 0:
                await asyncio.sleep(min(wait, LONGEST_SLEEP))
                continue
            await _renew(directory, head)
            pause = FIRST_PAUSE
        except (AgentError, OSError, ValueError, KeyError) as error:
            log.warning("the certificate was not renewed, trying again in %.0f s: %s", pause, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


async def due(directory: Path) -> float:
    """When to renew, in seconds since the epoch. AgentError, ValueError."""
    said = await openssl("x509", "-noout", "-startdate", "-enddate", "-in", str(directory / "node.crt"))
    dates = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    begin, end = (ssl.cert_time_to_seconds(dates[name]) for name in ("notBefore", "notAfter"))
    return begin + (end - begin) * 2 / 3


async def _renew(directory: Path, head: str) -> None:
    ca, csr = (directory / "ca.crt").read_bytes(), (directory / "node.csr").read_text(encoding="utf-8")
    own = (directory / "node.crt", directory / "node.key")
    status, answer = await asyncio.to_thread(ask, Head(head, ""), ca, "/renew", {"csr": csr}, own)
    if status != OK:
        raise AgentError(f"head {head}: {answer.get('reason', status)}")
    await asyncio.to_thread(put, directory, answer)
    log.info("the certificate was renewed")
