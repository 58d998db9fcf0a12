"""What a node proves itself with: a key of its own, the certificate the cluster's authority gave it, the authority's own.

The key is made here and never leaves: DIR/node.key and the request DIR/node.csr are written at the agent's start; whoever runs the
authority signs the request and puts DIR/node.crt and DIR/ca.crt beside it, and the agent waits for that. The same files prove the
node to etcd and to other agents. Files that are replaced later are used from the next connection on.
"""

import asyncio
import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crds.organisations import NODES
from nodeagent.channel import Peer
from nodeagent.errors import AgentError, PeerLost

log = logging.getLogger(__name__)

OPENSSL_SECONDS = 20.0
LOOK = 0.05  # seconds between two looks for the certificate
CIPHERS = Path(__file__).with_name("openssl.cnf")
"""AES with 128 bits first: a third cheaper than with 256 where the processor has instructions for it, and no weaker in practice."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where they are, in PEM."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def of_node(cls, directory: Path) -> "Files":
        """Those of an agent that was told this directory."""
        return cls(directory / "ca.crt", directory / "node.crt", directory / "node.key")

    def stamps(self) -> tuple[tuple[int, int], ...]:
        """Change when a file is replaced. Raises FileNotFoundError."""
        found = [path.stat() for path in (self.ca, self.certificate, self.key)]
        return tuple((each.st_mtime_ns, each.st_ino) for each in found)


class Credentials:
    """TLS 1.3 contexts for both roles; each end has to show a certificate of the authority. Loaded at first use."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._stamps: tuple[tuple[int, int], ...] = ()
        self._contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None = None

    def server(self) -> ssl.SSLContext:
        """Raises PeerLost while there is no certificate yet, or none that can be used."""
        return self._load()[0]

    def client(self) -> ssl.SSLContext:
        """As ``server``."""
        return self._load()[1]

    def _load(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        files = self._files
        try:
            stamps = files.stamps()
            if self._contexts is None or stamps != self._stamps:
                contexts = (_context(ssl.PROTOCOL_TLS_SERVER, files), _context(ssl.PROTOCOL_TLS_CLIENT, files))
                self._stamps, self._contexts = stamps, contexts
                log.info("data channel: certificate %s is in use", files.certificate)
        except FileNotFoundError as error:
            missing = next((path for path in (files.ca, files.certificate, files.key) if not path.exists()), error.filename)
            raise PeerLost(
                f"no certificate yet: {missing} is missing: {_HOW.format(directory=files.certificate.parent)}"
            ) from error
        except (OSError, ValueError) as error:
            raise PeerLost(f"{files.certificate} cannot be used with its key and authority: {error}") from error
        return self._contexts


_HOW = "have {directory}/node.csr signed by the cluster's authority"


def _context(protocol: int, files: Files) -> ssl.SSLContext:
    os.environ.setdefault("OPENSSL_CONF", str(CIPHERS))  # read by OpenSSL when it makes its first context
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # the name in a certificate is a node's, and compared by whoever knows which it has to be
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # nothing is resumed; and a sender never reads, so nothing may lie in its way
    context.load_verify_locations(files.ca)
    context.load_cert_chain(files.certificate, files.key)
    return context


def peer_of(certificate: dict[str, Any]) -> Peer:
    """Whom a verified certificate names: its common name, which an alternative name has to confirm, and its organisation."""
    subject = {key: value for part in certificate.get("subject", ()) for key, value in part}
    name = subject.get("commonName", "")
    confirmed = ("DNS", name) in certificate.get("subjectAltName", ())
    return Peer(
        name if confirmed else "", subject.get("organizationName", ""), proved=True, serial=certificate.get("serialNumber", "")
    )


_MEANINGS = {
    "CERTIFICATE_HAS_EXPIRED": "its certificate has expired: have a new one issued",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not of this cluster's authority",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has shown no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not accept our certificate: not of its cluster's authority",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate from us",
    "ALERT_CERTIFICATE_EXPIRED": "it does not accept our certificate, which has expired: have a new one issued",
    "ALERT_BAD_CERTIFICATE": "it does not accept our certificate",
    "ALERT_CERTIFICATE_UNKNOWN": "it does not accept our certificate",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: is its agent run with --insecure?",
    "HTTP_REQUEST": "it does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "it does not speak TLS 1.3",
}


def explain(error: ssl.SSLError) -> str:
    """What OpenSSL's words mean to people, and the words."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code == _EXPIRED:
        return f"TLS: {_MEANINGS['CERTIFICATE_HAS_EXPIRED']}"
    reason = error.reason or type(error).__name__
    meaning = next((words for part, words in _MEANINGS.items() if part in reason), "")
    detail = getattr(error, "verify_message", "") or reason.replace("_", " ").lower()
    return f"TLS: {meaning} ({detail})" if meaning else f"TLS: {detail}"


_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED


async def prepare(directory: Path, node: str) -> None:
    """Makes the node's key and the request for its certificate, unless they are there. Raises AgentError.

    Without ``node`` the request names nobody: for a machine that is told its name with the certificate.
    """
    key, request = directory / "node.key", directory / "node.csr"
    if key.exists() and request.exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    fresh = directory / f".node.key.{os.getpid()}"
    wish = directory / f".node.csr.{os.getpid()}"
    names = ["-subj", f"/O={NODES}" + (f"/CN={node}" if node else "")]
    # both at once: a machine that boots waits for each start of a program
    made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(fresh))
    await openssl("req", "-new", *made, "-out", str(wish), *names)
    fresh.chmod(0o600)
    fresh.replace(key)
    wish.replace(request)  # last: where there is a request there is its key
    log.info("data channel: made a key; its certificate is to be had by signing %s", request)


async def until_signed(directory: Path) -> None:
    """Waits until the certificate and the authority's own are there."""
    missing = [directory / name for name in ("ca.crt", "node.crt")]
    if all(path.exists() for path in missing):
        return
    log.info("waiting for a certificate: %s", _HOW.format(directory=directory))
    while not all(path.exists() for path in missing):  # noqa: ASYNC110 - somebody else writes them
        await asyncio.sleep(LOOK)


async def openssl(*arguments: str) -> str:
    """What it printed. AgentError."""
    try:
        process = await asyncio.create_subprocess_exec(
            "openssl",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
        )
    except OSError as error:
        raise AgentError(f"openssl: cannot be started: {error.strerror}: install it, the node's key is made with it") from error
    try:
        async with asyncio.timeout(OPENSSL_SECONDS):
            printed, said = await process.communicate()
    except TimeoutError:
        raise AgentError(f"openssl {arguments[0]}: no end within {OPENSSL_SECONDS} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise AgentError(f"openssl {arguments[0]}: ended with {process.returncode}: {said.decode(errors='replace').strip()[-200:]}")
    return printed.decode(errors="replace")
