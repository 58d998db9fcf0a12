"""A machine's certificate goes into its directory, and no link that the machine made there leads anywhere else."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clip.service.enrolment import enrol

ROW: Any = SimpleNamespace(name="n1", mac="52:54:00:77:00:01")


class Office:
    """A registry that signs everything."""

    class authority:  # noqa: N801 - in the place of an attribute
        pem = b"ca"

        @staticmethod
        def fits(certificate: bytes, request: bytes) -> bool:
            return certificate == b"signed " + request

    @staticmethod
    async def issue(request: bytes, *_: object) -> bytes:
        return b"signed " + request


REGISTRY: Any = Office()


async def test_a_request_is_answered_once(tmp_path: Path) -> None:
    assert not await enrol(REGISTRY, tmp_path / "tls", ROW)
    (tmp_path / "tls").mkdir()
    assert not await enrol(REGISTRY, tmp_path / "tls", ROW)
    (tmp_path / "tls" / "node.csr").write_bytes(b"request")
    assert await enrol(REGISTRY, tmp_path / "tls", ROW)
    assert not await enrol(REGISTRY, tmp_path / "tls", ROW)
    assert {path.name: path.read_bytes() for path in (tmp_path / "tls").iterdir()} == {
        "node.csr": b"request",
        "node.crt": b"signed request",
        "ca.crt": b"ca",
    }


@pytest.mark.parametrize("link", ["tls", "tls/node.csr", "tls/ca.crt", "tls/node.crt", "tls/.ca.crt.PID"])
async def test_no_link_is_followed(tmp_path: Path, link: str) -> None:
    link = link.replace("PID", str(os.getpid()))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = elsewhere if link == "tls" else elsewhere / "passwd"
    for directory in {elsewhere, tmp_path / "tls"} - ({tmp_path / "tls"} if link == "tls" else set()):
        directory.mkdir(exist_ok=True)
        (directory / "node.csr").write_bytes(b"request")
    (elsewhere / "passwd").write_bytes(b"root")
    (tmp_path / link).unlink(missing_ok=True)
    (tmp_path / link).symlink_to(target)
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    try:
        await enrol(REGISTRY, tmp_path / "tls", ROW)
    except OSError as error:
        assert "ymbolic" in str(error) or "Not a directory" in str(error)
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == before
