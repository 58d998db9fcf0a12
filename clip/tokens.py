"""One-time tokens: what a machine shows to get its first certificate.

A token stands in the kernel line of a machine that we boot, bound to its MAC, or is given to a person for a machine that runs
already. It is good for minutes and for one key: whoever showed it first may show it again, with the same key, when the answer was
lost on the way; nobody else may. On the head's disk lies its hash only, ``DIRECTORY/<mac or "any">.<sha256 of the token>``; nothing
is in etcd.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from clip.errors import ClipError
from crds.join import Proof
from crds.meta import Model, Name, Time

BOOT_SECONDS = 900.0
"""Life of a token in a boot answer: longer than the slowest boot."""
LONGEST_SECONDS = 86400.0
TOKENS = Path("/var/lib/mx/tokens")
MOST = 8
"""Unused tokens of a machine that are kept: it may ask again and again what to boot."""
_ANY = "any"


class TokenRefused(ClipError):  # noqa: N818 - reads as what it says
    """Why a token does not do, in one line."""


class Token(Model):
    """What is known of a token; not the token itself."""

    mac: str | None = None
    """For which machine only; unset: whichever it is given to."""
    node: Name | None = None
    """As which node it joins; unset: a person will say."""
    proof: Proof
    """Who gave it."""
    until: Time
    """When it ends."""
    key: str | None = None
    """SHA-256 of the public key it was used with."""


class Tokens:
    """Those of one head. Calls are short and block; ``clock`` gives the time in UTC."""

    def __init__(self, directory: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._directory = directory
        self._clock = clock

    def for_boot(self, mac: str, node: str, *, seconds: float = BOOT_SECONDS) -> str:
        """For the kernel line of a machine that boots as ``node``. ValueError for what is no MAC or no name, OSError."""
        self._drop_oldest(mac)
        return self.create(
            Token(mac=_canonical(mac), node=node, proof=Proof.BOOTED, until=self._clock() + timedelta(seconds=seconds))
        )

    def for_person(self, node: str | None = None, *, seconds: float = BOOT_SECONDS) -> str:
        """For ``mxctl join`` on any machine. ValueError for what is no name, and for a life that is no sensible one."""
        if not 1 <= seconds <= LONGEST_SECONDS:
            raise ValueError(f"a token lives 1 second to {LONGEST_SECONDS / 3600:.0f} hours, not {seconds:g} s")
        return self.create(Token(node=node, proof=Proof.GIVEN, until=self._clock() + timedelta(seconds=seconds)))

    def create(self, token: Token) -> str:
        """The text to hand out; it is nowhere else. OSError when the disk is full."""
        text = secrets.token_hex(16)
        self._write(self._directory / f"{_slot(token.mac)}.{_digest(text)}", token)
        return text

    def use(self, text: str, mac: str, key: str) -> Token:
        """The token, now that ``key`` of the machine ``mac`` has used it, and durably so. TokenRefused, OSError."""
        digest = _digest(text)
        for slot in (_slot(mac), _ANY):
            path = self._directory / f"{slot}.{digest}"
            if path.exists():
                break
        else:
            raise TokenRefused(
                f"machine {mac}: the token is not known: it has ended, was used up or is for another machine: get a new one"
            )
        token = self._read(path)
        if token.until <= self._clock():
            path.unlink(missing_ok=True)
            raise TokenRefused(f"machine {mac}: the token ended at {token.until:%H:%M:%S} UTC: get a new one")
        if token.key not in (None, key):
            raise TokenRefused(f"machine {mac}: the token was used by another machine or with another key: get a new one")
        if token.key is None:
            token.key = key
            self._write(path, token)
            self._drop_others(mac, path)
        return token

    def prune(self) -> int:
        """Removes those that have ended; returns how many."""
        if not self._directory.is_dir():
            return 0
        ended = 0
        for path in self._directory.glob("[!.]*"):
            try:
                over = self._read(path).until <= self._clock()
            except TokenRefused:
                over = True
            if over:
                path.unlink(missing_ok=True)
                ended += 1
        return ended

    def _drop_others(self, mac: str, used: Path) -> None:
        """A machine that was answered several times has several; one is enough."""
        for path in self._directory.glob(f"{_slot(mac)}.*"):
            if path != used:
                path.unlink(missing_ok=True)

    def _drop_oldest(self, mac: str) -> None:
        found = []
        for path in self._directory.glob(f"{_slot(mac)}.*"):
            with contextlib.suppress(FileNotFoundError):  # mx-join removed it at this moment
                found.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(found)[: max(0, len(found) - MOST + 1)]:
            path.unlink(missing_ok=True)

    def _read(self, path: Path) -> Token:
        try:
            return Token.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError) as error:
            raise TokenRefused(f"token {path.name[:24]}: cannot be read any more: get a new one") from error

    def _write(self, path: Path, token: Token) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(token.to_json())
                out.flush()
                if token.key is not None:
                    os.fsync(out.fileno())  # that it was used must never be forgotten; one that is lost is merely asked for again
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _slot(mac: str | None) -> str:
    return _ANY if mac is None else _canonical(mac).replace(":", "-")


def _canonical(mac: str) -> str:
    """ValueError naming what is no MAC: it becomes part of a file's name."""
    lower = mac.lower()
    parts = lower.split(":")
    if len(parts) != 6 or any(len(part) != 2 or set(part) - set("0123456789abcdef") for part in parts):
        raise ValueError(f'"{mac}" is no MAC: write it like 52:54:00:77:00:01')
    return lower
