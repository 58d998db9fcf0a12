"""How a machine gets its certificate by itself: it shows its token at the head, and asks again while it has to wait.

The head is known by the fingerprint of its authority, which the machine was told together with the token; before that is proved,
nothing is said but the question for the authority's certificate. Standard library only, and blocking: it runs in a thread, or in
``mxctl join``.
"""

import hashlib
import http.client
import json
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodeagent.errors import AgentError

log = logging.getLogger(__name__)

SECONDS = 10.0  # for one answer
PAUSE = 1.0  # seconds between two questions
OK, WAIT, REFUSED, NOT_NOW = 200, 202, 403, 503


class NotAdmitted(AgentError):  # noqa: N818 - reads as what it says
    """The head said no."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where to ask, and how to know that it is the right one: SHA-256 of its authority's certificate, hexadecimal."""

    address: str
    fingerprint: str

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a person was given by ``mxctl token create``, and the network card to join with."""

    head: Head
    token: str
    mac: str


def fetch_authority(head: Head) -> bytes:
    """The authority's certificate, PEM, if it is the one that was promised. NotAdmitted, OSError."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE  # its fingerprint is what proves it
    status, pem = _exchange(head, anybody, "GET", "/ca", None)
    try:
        found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).hexdigest()
    except ValueError as error:
        raise NotAdmitted(f"head {head.address}: answers {status} with what is no certificate: is it mx-clip?") from error
    if found != head.fingerprint:
        raise NotAdmitted(f"head {head.address}: is not of the cluster we were invited to: its fingerprint is {found}")
    return pem


def ask(head: Head, ca: bytes, path: str, body: dict[str, Any], own: tuple[Path, Path] | None = None) -> tuple[int, dict[str, Any]]:
    """One question; ``own`` is certificate and key, where we have them. OSError (which ssl's errors are)."""
    context = ssl.create_default_context(cadata=ca.decode())
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if own is not None:
        context.load_cert_chain(*own)
    status, said = _exchange(head, context, "POST", path, json.dumps(body).encode())
    try:
        answer = json.loads(said)
    except ValueError:
        answer = {"reason": said.decode(errors="replace")[:200]}
    return status, answer if isinstance(answer, dict) else {}


def join(
    invited: Invitation, csr: str, facts: dict[str, Any], *, deadline: float, told: Callable[[str], None] = log.info
) -> dict[str, Any]:
    """Until there is an answer that is final: {node, certificate, ca, endpoints, shared}. ``deadline`` in seconds from now.

    ``told`` hears each new reason to wait. NotAdmitted, TimeoutError.
    """
    until, last = time.monotonic() + deadline, ""
    while True:
        status, answer = knock(invited, csr, facts)
        if status == OK:
            return answer
        reason = str(answer.get("reason", f"status {status}"))
        if reason != last:
            told(reason)
        last = reason
        if time.monotonic() > until:
            raise TimeoutError(f"no certificate within {deadline:.0f} s: {reason}")
        time.sleep(PAUSE)


def knock(invited: Invitation, csr: str, facts: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Asks once: OK and what ``join`` returns, or WAIT or NOT_NOW and the reason. NotAdmitted."""
    body = {"mac": invited.mac, "token": invited.token, "csr": csr, "facts": facts}
    try:
        status, answer = ask(invited.head, fetch_authority(invited.head), "/join", body)
    except OSError as error:
        return NOT_NOW, {"reason": f"head {invited.head.address}: does not answer: {error}"}
    if status not in (OK, WAIT, NOT_NOW):
        raise NotAdmitted(f"head {invited.head.address}: {answer.get('reason', f'status {status}')}")
    return status, answer


def facts_of_machine() -> dict[str, Any]:
    """What we say of ourselves; nobody has to believe it."""
    release = Path("/etc/os-release")
    lines = release.read_text(encoding="utf-8").splitlines() if release.exists() else []
    system = next((line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    known = {"hostname": socket.gethostname(), "system": system, "kernel": os.uname().release}
    return {**known, "cpus": os.cpu_count() or 0, "memory": memory}


def put(directory: Path, answer: dict[str, Any]) -> None:
    """DIR/ca.crt, DIR/node.crt; the certificate last, as others wait for it."""
    for name, content in (("ca.crt", answer["ca"]), ("node.crt", answer["certificate"])):
        fresh = directory / f".{name}.{os.getpid()}"
        fresh.write_text(content, encoding="utf-8")
        fresh.replace(directory / name)


def _exchange(head: Head, context: ssl.SSLContext, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection(head.host, head.port, timeout=SECONDS, context=context)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
