"""What the authority signs, and for whom not."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from clip.authority import Authority, AuthorityError, read_request, renewal_of, serial_of
from crds.organisations import ETCD

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.open(tmp_path_factory.mktemp("authority"), "test")


def wish(*names: str, key: Key | None = None) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_request_names_who_asks(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    one, other = read_request(wish("n1", key=key), "n1"), read_request(wish("n2", key=key), "n2")
    assert (one.name, other.name) == ("n1", "n2")
    assert one.digest == other.digest != read_request(wish("n1"), "n1").digest
    assert read_request(wish("n1", "n2"), "n1").name == ""


@pytest.mark.parametrize("name", ["root", "_reconciler", "_admin"])
def test_nobody_is_ever_signed_as_somebody_in_etcd(authority: Authority, name: str) -> None:
    with pytest.raises(AuthorityError, match="choose another name"):
        authority.sign(wish(name), name)


def test_only_keys_of_one_kind_are_signed(authority: Authority) -> None:
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        with pytest.raises(AuthorityError, match="EC P-256"):
            authority.sign(wish("n1", key=key), "n1")


def test_a_changed_request_is_not_signed(authority: Authority) -> None:
    honest = x509.load_pem_x509_csr(wish("n1")).public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_csr(honest.replace(b"n1", b"n2")).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(AuthorityError, match="not signed with its own key"):
        authority.sign(forged, "n2")


def test_a_certificate_is_renewed_after_two_thirds_of_its_life(authority: Authority) -> None:
    issued = authority.sign(wish("n1"), "n1", days=3)
    read = x509.load_pem_x509_certificate(issued)
    assert abs(renewal_of(read) - (datetime.now(UTC) + timedelta(days=2))) < timedelta(minutes=10)
    serial, until = serial_of(issued)
    assert int(serial, 16) == read.serial_number and len(serial) % 2 == 0 and serial == serial.upper()
    assert until == read.not_valid_after_utc


def test_a_service_is_known_by_its_addresses(authority: Authority, tmp_path: Path) -> None:
    authority.service(tmp_path, ETCD, ["10.0.0.1", "head"])
    read = x509.load_pem_x509_certificate((tmp_path / "etcd.crt").read_bytes())
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name) for name in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    assert names.get_values_for_type(x509.DNSName) == ["_etcd", "head"]
    assert (tmp_path / "etcd.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ca.crt").read_bytes() == authority.pem
    assert authority.fingerprint == authority.certificate.fingerprint(hashes.SHA256()).hex()
