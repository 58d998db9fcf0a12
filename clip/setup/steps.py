"""The steps of making a head. Each may be repeated; what is there already and right is left as it is, and every change is told."""

import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from clip import image
from clip.authority import Authority, renewal_of
from clip.doctor.etcd import holes, parse_version
from clip.setup.config import FILE, HeadConfig, SetupFailed, render
from clip.setup.units import AUTHORITY, REVOKED, TLS, TOKENS, UNITS, Unit, unit_file
from crds.organisations import CLIP, ETCD, RECONCILER

ADMIN = "admin"
SECONDS = 90.0
DEBIANS_ETCD, TAKEN_ETCD = "/usr/bin/etcd", "/usr/local/lib/mx/etcd"
PROGRAMS = {
    "/usr/sbin/dnsmasq": "dnsmasq-base",
    "/usr/bin/ganesha.nfsd": "nfs-ganesha nfs-ganesha-vfs",
    "/usr/lib/ipxe/undionly.kpxe": "ipxe",
    "/usr/lib/ipxe/snponly.efi": "ipxe",
    "/usr/bin/mmdebstrap": "mmdebstrap",
}
"""What has to be there, and the Debian packages that bring it."""
OTHERS = ("nfs-ganesha.service", "nfs-server.service", "etcd.service")
"""Services of Debian's own packages that want the same ports."""
SOURCES = ("pyproject.toml", "constraints.txt")
"""Of a clone, beside its packages: mx-clip makes the agent's layer from them."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tree:
    """Where it is written, and whether it is."""

    root: Path
    dry: bool
    say: Say

    @property
    def is_machine(self) -> bool:
        """We are making this very machine the head."""
        return self.root == Path("/") and not self.dry

    def at(self, path: str | Path) -> Path:
        """A path of the head, as we see it."""
        return self.root / str(path).lstrip("/")

    def note(self, path: str | Path) -> None:
        """Tells a change, done or only thought of."""
        self.say(f"{'would write' if self.dry else 'wrote'} {path}")

    def put(self, path: str, text: str, mode: int = 0o644) -> bool:
        """True when the file said something else before. Readers see the old text or the new."""
        target = self.at(path)
        if target.is_file() and target.read_text(encoding="utf-8") == text:
            return False
        self.note(path)
        if not self.dry:
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".{target.name}.{os.getpid()}")
            fresh.write_text(text, encoding="utf-8")
            fresh.chmod(mode)
            fresh.replace(target)
        return True

    def directory(self, path: str, mode: int) -> None:
        """Made when it is not there, and opened when it is closed: dnsmasq reads its hosts as a user of its own."""
        target = self.at(path)
        there = target.stat().st_mode & 0o7777 if target.is_dir() else 0
        if there & mode == mode:
            return
        self.note(f"{path}/")
        if not self.dry:
            target.mkdir(parents=True, exist_ok=True)
            target.chmod(there | mode)


def check_machine(config: HeadConfig, cards: dict[str, list[str]], readable: Sequence[str]) -> None:
    """SetupFailed when this machine cannot be the head, before anything is written. ``readable``: what services run from."""
    if os.geteuid() != 0:
        raise SetupFailed("a head needs root, for its services and their keys; run mxctl with sudo")
    if config.address not in cards.get(config.interface, []):
        known = ", ".join(f"{address} on {card}" for card, its in cards.items() for address in its) or "none"
        raise SetupFailed(f"address {config.address} is not on {config.interface}: this machine has {known}; set it up first")
    missing = {package for path, package in PROGRAMS.items() if not Path(path).exists()}
    if missing:
        raise SetupFailed(f"programs are missing: apt install --no-install-recommends {' '.join(sorted(missing))}")
    lacking = [file for file in SOURCES if not (image.project_dir() / file).exists()]
    if lacking:
        raise SetupFailed(f"{image.project_dir()} has no {lacking[0]}: images are built from a clone of MX, run mxctl from there")
    for path in readable:
        check_readable(Path(path))
    check_etcd(config.etcd)


def check_etcd(program: str) -> None:
    """SetupFailed when it is not there, or would let nodes do what they like."""
    remedy = "name a later one as etcd in /etc/mx/head.yaml; Debian unstable's etcd-server runs on Debian 12 and 13"
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupFailed(f"{program}: {error}; {remedy}") from error
    found = re.search(r"etcd Version: (\S+)", said)
    version = parse_version(found[1]) if found else None
    if version is None:
        raise SetupFailed(f"{program} does not say its version; {remedy}")
    grave = [what for bad, what in holes(version) if bad]
    if grave:
        raise SetupFailed(f"{program} is {'.'.join(map(str, version))}: {grave[0]}; {remedy}")


def check_readable(path: Path) -> None:
    """SetupFailed when users other than root cannot run what is there: two of the services do."""
    for each in (path, *path.parents):
        wanted = 0o005 if each.is_dir() else 0o004
        if each.stat().st_mode & wanted != wanted:
            raise SetupFailed(
                f"{each} is closed to others than root, and services run from {path}: install MX below /opt, or chmod"
            )


def write_files(tree: Tree, config: HeadConfig, units: Sequence[Unit]) -> list[Unit]:
    """The configuration, directories and units; those units that are new or changed."""
    tree.put(str(FILE), render(config))
    for path, mode in ((config.images, 0o755), (config.state, 0o755), (TOKENS, 0o700), ("/var/log/mx", 0o755)):
        tree.directory(path, mode)
    tree.directory(config.shared, 0o1777)
    return [unit for unit in units if tree.put(f"{UNITS}/{unit.file}", unit_file(unit))]


def write_certificates(tree: Tree, config: HeadConfig) -> list[str]:
    """The authority, once, and certificates that are missing, of another authority or address, or due for renewal: their names."""
    directory = tree.at(AUTHORITY)
    if tree.dry and not (directory / "ca.crt").exists():
        tree.note(f"{AUTHORITY}/ and {TLS}/")
        return []
    if not (directory / "ca.crt").exists():
        tree.note(f"{AUTHORITY}/ca.crt")
    authority = Authority.open(directory, f"mx {config.cluster}")
    reached = [config.address, "127.0.0.1", "head"]
    fresh = []
    for name, addresses in ((ETCD, reached), (RECONCILER, []), (CLIP, reached)):
        short = name.removeprefix("_")
        if not _is_good(tree.at(TLS) / f"{short}.crt", authority, addresses):
            fresh.append(short)
            tree.note(f"{TLS}/{short}.crt")
            if not tree.dry:
                authority.service(tree.at(TLS), name, addresses)
    revoked = tree.at(REVOKED)
    if not revoked.exists():  # etcd wants one to begin with; mx-join keeps it
        tree.note(REVOKED)
        if not tree.dry:
            revoked.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            authority.publish(revoked, [])
    if not _is_good(directory / f"{ADMIN}.crt", authority, []):
        tree.note(f"{AUTHORITY}/{ADMIN}.crt")
        if not tree.dry:
            authority.admin(ADMIN)
    return fresh


def _is_good(file: Path, authority: Authority, addresses: Sequence[str]) -> bool:
    try:
        found = x509.load_pem_x509_certificate(file.read_bytes())
        found.verify_directly_issued_by(authority.certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    have = {str(each.value) for each in names}
    return set(addresses) <= have and datetime.now(UTC) < renewal_of(found)


def has_systemd() -> bool:
    """It runs here."""
    return Path("/run/systemd/system").is_dir()


def start(units: Sequence[Unit], changed: Sequence[str], say: Say) -> None:
    """All units, now and after each boot; those named in ``changed`` anew. SetupFailed."""
    _systemctl("daemon-reload")
    for other in OTHERS:
        if subprocess.run(["systemctl", "is-enabled", "-q", other], timeout=SECONDS, check=False).returncode == 0:
            say(f"disabling {other}, which has the same port")
            _systemctl("disable", "--now", other)
    _systemctl("enable", *(unit.file for unit in units))
    running = [unit.file for unit in units if unit.name in changed]
    if running:
        say(f"starting {' '.join(running)}")
        _systemctl("restart", "--no-block", *running)
    _systemctl("start", "--no-block", *(unit.file for unit in units))


def _systemctl(*words: str) -> None:
    command = ["systemctl", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupFailed(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise SetupFailed(f"{' '.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")


def find_etcd(tree: Tree, images: str) -> str:
    """The machine's own if it is good, else a copy of the one that nodes' images bring, which runs on older Debians, too."""
    for candidate in (TAKEN_ETCD, DEBIANS_ETCD, *sorted(map(str, tree.at(images).glob("base-*/root/usr/bin/etcd")))):
        try:
            check_etcd(candidate)
        except SetupFailed:
            continue
        if candidate in (TAKEN_ETCD, DEBIANS_ETCD):
            return candidate
        tree.note(f"{TAKEN_ETCD}, from {candidate}")
        if not tree.dry:
            Path(TAKEN_ETCD).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(candidate, f"{TAKEN_ETCD}.new")
            Path(f"{TAKEN_ETCD}.new").chmod(0o755)
            Path(f"{TAKEN_ETCD}.new").replace(TAKEN_ETCD)
        return TAKEN_ETCD
    return DEBIANS_ETCD


def card_of(address: str, cards: dict[str, list[str]]) -> str:
    """The network card that has it; SetupFailed."""
    for card, addresses in cards.items():
        if address in addresses:
            return card
    known = ", ".join(
        f"{each} on {card}" for card, its in cards.items() for each in its if not ipaddress.ip_address(each).is_loopback
    )
    raise SetupFailed(
        f"address {address} is not on this machine, which has {known or 'none'}: set it up first, or pass --interface"
    )
