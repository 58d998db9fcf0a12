"""The cluster's own small certificate authority: who its certificate names may take part in the data channel.

It lives with whoever runs the cluster, never on a node: DIRECTORY/ca.key (0600) and DIRECTORY/ca.crt. Nodes make their own keys and
send requests (nodeagent/credentials.py); people who may do everything get a key and a certificate of the organisation mx:admins.
Errors: AuthorityError, in one line.
"""

import hashlib
import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from clip.errors import ClipError
from crds.organisations import ADMINS, HEADS, NODES, SUPERUSER, person

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365  # of people and of the head's services
NODE_DAYS = 30  # an agent has a new one after two thirds of them
_EARLIER = timedelta(minutes=5)  # clocks differ a little


class AuthorityError(ClipError):
    """A certificate cannot be issued; says which, and why."""


class Authority:
    """Issues certificates. Made by ``open``."""

    def __init__(self, directory: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.directory = directory
        self._key = key
        self.certificate = certificate

    @classmethod
    def open(cls, directory: Path, name: str) -> "Authority":
        """The one that lies in the directory, or a new one called ``name``."""
        key_file, certificate_file = directory / "ca.key", directory / "ca.crt"
        if not certificate_file.exists():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            key = ec.generate_private_key(ec.SECP256R1())
            _write(key_file, _private(key), 0o600)
            _write(certificate_file, _root(key, name).public_bytes(serialization.Encoding.PEM), 0o644)
        try:
            private = serialization.load_pem_private_key(key_file.read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        except (OSError, ValueError) as error:
            raise AuthorityError(
                f"authority in {directory}: cannot be read: {error}; remove the directory for a new one"
            ) from error
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != certificate.public_key():
            raise AuthorityError(f"authority in {directory}: ca.key is not the key of ca.crt; remove the directory for a new one")
        return cls(directory, private, certificate)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of our own certificate: what a machine that boots is told, to know us by."""
        return fingerprint_of(self.pem)

    @property
    def pem(self) -> bytes:
        """Our own certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, request: bytes, node: str, *, days: float = NODE_DAYS) -> bytes:
        """The certificate for a node's request, both PEM. It has to be for this node or for nobody, and signed with its own key."""
        asked = read_request(request, node)
        if asked.name not in ("", node):
            raise AuthorityError(f"node {node}: its request is for {asked.name or 'nobody'}: nothing was signed")
        if node == SUPERUSER or node.startswith("_"):
            raise AuthorityError(f"node {node}: etcd's users have this name: nothing was signed; choose another name")
        return self._issue(asked.key, NODES, node, days).public_bytes(serialization.Encoding.PEM)

    def fits(self, certificate: bytes, request: bytes) -> bool:
        """Whether the certificate is ours, for the key of that request, and not to be renewed yet."""
        try:
            there, asked = x509.load_pem_x509_certificate(certificate), x509.load_pem_x509_csr(request)
            there.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return there.public_key() == asked.public_key() and datetime.now(UTC) < renewal_of(there)

    def revocation_list(self, serials: Iterable[str]) -> bytes:
        """X.509's list of certificates that nobody is to believe, by their numbers, as ``serial_of`` gives them; DER."""
        now = datetime.now(UTC)
        listed = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - _EARLIER)
            .next_update(self.certificate.not_valid_after_utc)  # whoever has none newer goes by this one
        )
        for serial in sorted(serials):
            entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(now - _EARLIER).build()
            listed = listed.add_revoked_certificate(entry)
        return listed.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def publish(self, path: Path, serials: Iterable[str]) -> None:
        """Writes the list for etcd, which reads it whenever somebody connects. OSError."""
        _write(path, self.revocation_list(serials), 0o644)

    def admin(self, name: str, *, days: float = CERTIFICATE_DAYS) -> tuple[Path, Path]:
        """Certificate and key of a person who may do everything, as files in our directory; made anew."""
        return self._make(self.directory, name, ADMINS, person(name), days, ())

    def service(self, directory: Path, common_name: str, addresses: Sequence[str] = (), *, days: float = CERTIFICATE_DAYS) -> None:
        """DIRECTORY/ca.crt and certificate and key of a service of the head, named without the underscore; made anew.

        ``addresses`` are those at which it is reached, IPv4 or names.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(directory / "ca.crt", self.pem, 0o644)
        self._make(directory, common_name.removeprefix("_"), HEADS, common_name, days, addresses)

    def _make(
        self, directory: Path, file: str, organisation: str, name: str, days: float, addresses: Sequence[str]
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate_file, key_file = directory / f"{file}.crt", directory / f"{file}.key"
        issued = self._issue(key.public_key(), organisation, name, days, addresses)
        _write(key_file, _private(key), 0o600)
        _write(certificate_file, issued.public_bytes(serialization.Encoding.PEM), 0o644)
        return certificate_file, key_file

    def _issue(
        self, key: ec.EllipticCurvePublicKey, organisation: str, name: str, days: float, addresses: Sequence[str] = ()
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        earlier = min(_EARLIER, timedelta(days=abs(days)) / 20)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        return (
            x509.CertificateBuilder()
            .subject_name(_name(organisation, name))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, now + timedelta(days=days)) - earlier)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name), *map(_alternative, addresses)]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .sign(self._key, hashes.SHA256())
        )


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants signed: for which name, and with which key."""

    name: str
    key: ec.EllipticCurvePublicKey

    @property
    def digest(self) -> str:
        """Of the public key, SHA-256: it names who asks, whatever he calls himself."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return hashlib.sha256(self.key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def read_request(request: bytes, who: str) -> Request:
    """Of PEM, signed with its own key. ``who`` is named in the AuthorityError."""
    try:
        asked = x509.load_pem_x509_csr(request)
        valid = asked.is_signature_valid
        public = asked.public_key()
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise AuthorityError(f"node {who}: its request for a certificate cannot be read: {error}") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise AuthorityError(f"node {who}: its key is of a kind this authority does not sign; it has to be EC P-256")
    if not valid:
        raise AuthorityError(f"node {who}: its request is not signed with its own key: nothing was signed")
    names = [str(each.value) for each in asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return Request(names[0] if len(names) == 1 else "", public)


def fingerprint_of(certificate: bytes) -> str:
    """SHA-256 of a certificate, PEM. ValueError when it is none."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def renewal_of(certificate: x509.Certificate) -> datetime:
    """When its holder should have a new one: after two thirds of its life."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) * 2 / 3


def serial_of(certificate: bytes) -> tuple[str, datetime]:
    """Of one that we issued, PEM: its number, as Python's ssl module writes it, and when it ends."""
    read = x509.load_pem_x509_certificate(certificate)
    digits = f"{read.serial_number:X}"
    return digits.zfill(len(digits) + len(digits) % 2), read.not_valid_after_utc


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _root(key: ec.EllipticCurvePrivateKey, name: str) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name("mx", name))
        .issuer_name(_name("mx", name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    """Of the authority's own certificate, or of those it issues."""
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(organisation: str, name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation), x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, and never readable by more than ``mode`` says."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
