"""mxctl head init: what it writes, and that it writes it once."""

import shlex
from pathlib import Path

import pytest

from clip.authority import Authority
from clip.join.__main__ import parser as join_parser
from clip.service.__main__ import parse as clip_parse
from clip.setup import config as configs
from clip.setup import steps
from clip.setup.config import Dhcp, SetupFailed
from clip.setup.units import TLS, UNITS, Unit, unit_file, units

CONFIG = configs.make({"address": "10.0.0.1", "interface": "eth1"})


def written(root: Path, config: configs.HeadConfig = CONFIG, *, dry: bool = False) -> list[str]:
    """What it says it wrote."""
    said: list[str] = []
    tree = steps.Tree(root, dry, said.append)
    steps.write_files(tree, config, units(config, ["/opt/mx"], "/usr/bin/python3"))
    steps.write_certificates(tree, config)
    return said


def test_the_second_time_nothing_differs(tmp_path: Path) -> None:
    assert f"wrote {UNITS}/mx-etcd.service" in written(tmp_path)
    assert written(tmp_path) == []
    assert configs.load(tmp_path / "etc/mx/head.yaml") == CONFIG


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    written(tmp_path)
    proxy = CONFIG.model_copy(update={"dhcp": Dhcp.PROXY})
    assert written(tmp_path, proxy) == ["wrote /etc/mx/head.yaml", f"wrote {UNITS}/mx-clip.service"]
    (tmp_path / "etc/mx/tls/reconciler.crt").write_text("garbage")
    assert written(tmp_path, proxy) == [f"wrote {TLS}/reconciler.crt"]
    moved = written(tmp_path, proxy.model_copy(update={"address": "10.0.0.2"}))
    assert f"wrote {TLS}/etcd.crt" in moved and f"wrote {TLS}/reconciler.crt" not in moved


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    said = written(tmp_path, dry=True)
    assert "would write /etc/mx/head.yaml" in said and list(tmp_path.iterdir()) == []
    written(tmp_path)
    (tmp_path / "etc/mx/tls/clip.crt").unlink()
    assert written(tmp_path, dry=True) == [f"would write {TLS}/clip.crt"]
    assert not (tmp_path / "etc/mx/tls/clip.crt").exists()


def test_certificates_that_are_due_are_made_anew(tmp_path: Path) -> None:
    written(tmp_path)
    authority = Authority.open(tmp_path / "var/lib/mx/authority", "x")
    authority.service(tmp_path / "etc/mx/tls", "_etcd", ["10.0.0.1", "127.0.0.1", "head"], days=-1)
    assert written(tmp_path) == [f"wrote {TLS}/etcd.crt"]


def test_a_directory_that_is_closed_is_opened(tmp_path: Path) -> None:
    """Else dnsmasq, which is no root, serves what it read at its start, and none of the machines declared later."""
    written(tmp_path)
    (tmp_path / "var/lib/mx/clip").chmod(0o700)
    assert written(tmp_path) == ["wrote /var/lib/mx/clip/"]
    assert (tmp_path / "var/lib/mx/clip").stat().st_mode & 0o777 == 0o755


def test_keys_are_for_root_alone(tmp_path: Path) -> None:
    written(tmp_path)
    keys = [*tmp_path.glob("etc/mx/tls/*.key"), *tmp_path.glob("var/lib/mx/authority/*.key")]
    assert len(keys) == 5 and all(path.stat().st_mode & 0o077 == 0 for path in keys)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"address": "127.0.0.1", "interface": "lo"}, "address: 127.0.0.1 cannot be reached"),
        ({"address": "10.0.0.256", "interface": "eth0"}, "address"),
        ({"address": "10.0.0.1", "interface": "eth 0"}, "interface"),
        ({"address": "10.0.0.1", "interface": "eth0", "shared": "shared"}, "shared"),
        ({"address": "10.0.0.1", "interface": "eth0", "dhcp": "none"}, "dhcp"),
        ({"address": "10.0.0.1", "interface": "eth0", "adress": "x"}, "adress"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(values: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match=says) as refused:
        configs.make(values)
    assert "\n" not in str(refused.value)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "head.yaml"
    file.write_text("address: [")
    with pytest.raises(SetupFailed, match="broken YAML"):
        configs.load(file)
    file.write_text("address: 10.0.0.1\nport: 3\n")
    with pytest.raises(SetupFailed, match=str(file)):
        configs.load(file)


def command(unit: Unit) -> list[str]:
    """What systemd would run."""
    (line,) = [line for line in unit_file(unit).splitlines() if line.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart=").replace("$$", "$"))


def test_our_daemons_understand_what_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {unit.name: unit for unit in units(CONFIG, ["/opt/mx"], "/usr/bin/python3")}
    assert all(tuple(command(unit)) == unit.command for unit in found.values())
    monkeypatch.setattr("clip.service.__main__.fingerprint_of", lambda pem: "f")
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda self: b"")
    served, endpoints, tls, _ = clip_parse(command(found["mx-clip"])[4:])
    assert (served.server, served.interface, endpoints) == ("10.0.0.1", "eth1", ["10.0.0.1:2379"])
    assert tls is not None and not served.proxy and served.join == "10.0.0.1:8443"
    joined = join_parser().parse_args(command(found["mx-join"])[4:])
    assert joined.address == "10.0.0.1" and joined.shared == "10.0.0.1:/shared"
    assert joined.tokens == served.tokens
    assert f"--client-crl-file={joined.revoked}" in command(found["mx-etcd"])
    assert f"ReadWritePaths={joined.revoked.parent}\n" in unit_file(found["mx-join"])
    assert f"--conf-file={served.dnsmasq}" in command(found["mx-dnsmasq"]) and str(served.ganesha) in command(found["mx-nfs"])
    assert f"--pid-file={served.dnsmasq_pid}" in command(found["mx-dnsmasq"])


def test_nobody_may_do_more_than_he_needs() -> None:
    for unit in units(CONFIG, ["/opt/mx"], "/usr/bin/python3"):
        text = unit_file(unit)
        if unit.name != "mx-clip":
            assert "CapabilityBoundingSet=" in text and "ProtectSystem=strict" in text and "NoNewPrivileges=yes" in text
        assert "SYS_ADMIN" not in text


def test_an_etcd_with_grave_holes_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "etcd"

    def says(version: str) -> None:
        program.write_text(f"#!/bin/sh\necho etcd Version: {version}\n")
        program.chmod(0o755)

    says("3.5.30")
    steps.check_etcd(str(program))
    says("3.4.23")
    with pytest.raises(SetupFailed, match="CVE-2026-33343"):
        steps.check_etcd(str(program))
    with pytest.raises(SetupFailed, match="gone"):
        steps.check_etcd(str(tmp_path / "gone"))


def test_services_that_are_not_root_have_to_read_us(tmp_path: Path) -> None:
    inside = tmp_path / "mx"
    inside.mkdir()
    tmp_path.chmod(0o700)
    with pytest.raises(SetupFailed, match=f"{tmp_path} is closed"):
        steps.check_readable(inside)


def test_a_machine_without_the_address_is_no_head() -> None:
    with pytest.raises(SetupFailed, match=r"10\.0\.0\.1 is not on eth1: this machine has 10\.9\.9\.9 on eth0") as refused:
        steps.check_machine(CONFIG, {"eth0": ["10.9.9.9"]}, [])
    assert "\n" not in str(refused.value)
    assert steps.card_of("10.9.9.9", {"eth0": ["10.9.9.9"]}) == "eth0"
    with pytest.raises(SetupFailed, match="not on this machine"):
        steps.card_of("10.0.0.1", {"eth0": ["10.9.9.9"]})
