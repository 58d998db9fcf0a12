"""The text for dnsmasq, iPXE and the NFS servers."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip.render import dnsmasq, ipxe, nfs
from clip.render.checks import RenderError
from clip.table import Revision, Row, Table
from crds.cluster import NetworkSpec

ROW = Row("n1", "52:54:00:77:00:01", "10.77.0.11", Revision("d1", ("agent-a", "base-b"), "boot-c", "console=ttyS0"))
TABLE = Table(NetworkSpec(), (ROW,))
DHCP = dnsmasq.DhcpSettings("br0", "10.77.0.1", 8080, "/run/hosts", "/run/leases", "/run/log", "/srv/tftp")
BOOT = ipxe.BootSettings("10.77.0.1", 8080, "10.77.0.1:2379")
NFS = nfs.NfsSettings("10.77.0.1", "/srv/images", "/srv/state", "/shared", "/srv/recovery")


def row(**changes: str) -> Row:
    values = {"name": ROW.name, "mac": ROW.mac, "address": ROW.address} | changes
    return Row(values["name"], values["mac"], values["address"], ROW.revision)


def test_a_host_has_one_line_without_tags() -> None:
    assert dnsmasq.host_files(TABLE) == {"52-54-00-77-00-01": "52:54:00:77:00:01,10.77.0.11,n1,infinite\n"}


def test_a_refused_machine_is_not_answered_unless_it_is_a_node() -> None:
    table = Table(NetworkSpec(), (ROW,), refused=frozenset({ROW.mac, "52:54:00:77:00:09"}))
    assert dnsmasq.host_files(table) == {
        "52-54-00-77-00-01": "52:54:00:77:00:01,10.77.0.11,n1,infinite\n",
        "52-54-00-77-00-09": "52:54:00:77:00:09,ignore\n",
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mac": "52:54:00:77:00"}, "'52:54:00:77:00' is no MAC"),
        ({"mac": "52:54:00:77:00:01\n"}, "is no MAC"),
        ({"mac": "01:54:00:77:00:01"}, "is no MAC"),
        ({"address": "10.77.0.300"}, "is no IPv4 address"),
        ({"name": "infinite"}, "cannot be the name"),
        ({"name": "3h"}, "cannot be the name"),
        ({"name": "a,b"}, "cannot be the name"),
        ({"name": "a\nb"}, "cannot be the name"),
    ],
)
def test_what_dnsmasq_would_misread_is_refused(changes: dict[str, str], told: str) -> None:
    with pytest.raises(RenderError, match=told):
        dnsmasq.host_line(row(**changes))


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_a_host_line_is_one_line_of_four_words_or_refused(mac: str, address: str, name: str) -> None:
    try:
        line = dnsmasq.host_line(row(mac=mac, address=address, name=name))
    except RenderError:
        return
    assert line.count("\n") == 1
    assert len(line.split(",")) == 4


def test_unknown_machines_get_addresses_of_the_discovery_range() -> None:
    text = dnsmasq.config(DHCP, NetworkSpec())
    assert "dhcp-range=10.77.0.113,10.77.0.126,255.255.255.0,2m\n" in text
    assert "no-ping\n" in text
    assert "set:known" not in text


def test_without_a_discovery_range_only_declared_machines_are_answered() -> None:
    text = dnsmasq.config(DHCP, NetworkSpec(cidr="192.168.1.0/24"))
    assert "dhcp-range=10.77.0.1,static,255.255.255.0\n" in text


def test_beside_another_server_no_addresses_are_given() -> None:
    settings = dnsmasq.DhcpSettings("br0", "10.77.0.1", 8080, "/run/hosts", "/run/leases", "/run/log", "/srv/tftp", proxy=True)
    text = dnsmasq.config(settings, NetworkSpec())
    assert "dhcp-range=10.77.0.0,proxy,255.255.255.0\n" in text
    url = text.partition("dhcp-boot=tag:ipxe,")[2].splitlines()[0]
    assert url == "http://10.77.0.1:8080/start" and len(url) < 128  # in the offer's header; dnsmasq cuts off what is longer
    assert "dhcp-authoritative" not in text
    assert "encap:175,176" not in text  # iPXE must wait for us then


def test_the_kernel_is_told_who_it_is_and_where_its_root_is() -> None:
    script = ipxe.boot_script(BOOT, TABLE, ROW)
    kernel = next(line for line in script.splitlines() if line.startswith("kernel "))
    assert kernel == (
        "kernel http://10.77.0.1:8080/images/boot-c/vmlinuz?mac=52:54:00:77:00:01 initrd=initrd.img "
        "ip=10.77.0.11::10.77.0.1:255.255.255.0:n1:eth0:none mx.mac=52:54:00:77:00:01 mx.server=10.77.0.1 mx.http=8080 "
        "mx.etcd=10.77.0.1:2379 mx.layers=agent-a:base-b mx.image=d1 console=ttyS0 || goto again"
    )
    assert script.startswith("#!ipxe\n")


def test_a_machine_is_invited_by_its_kernel_line() -> None:
    inviting = replace(BOOT, join="10.77.0.1:8443", fingerprint="ab" * 32)
    assert "mx.token" not in ipxe.boot_script(inviting, TABLE, ROW)
    script = ipxe.boot_script(inviting, TABLE, ROW, "c0ffee")
    assert f" mx.image=d1 mx.join=10.77.0.1:8443 mx.ca={'ab' * 32} mx.token=c0ffee console=ttyS0 || goto again" in script


@pytest.mark.parametrize("argument", ["a;b", "a\nboot", "${net0/mac}", "a||b", "a#b", '"'])
def test_no_argument_ends_the_kernel_line(argument: str) -> None:
    bad = Row("n1", ROW.mac, ROW.address, Revision("d1", ("a",), "boot-c", argument))
    with pytest.raises(RenderError, match="kernel arguments"):
        ipxe.boot_script(BOOT, Table(NetworkSpec(), (bad,)), bad)


@pytest.mark.parametrize(
    "script", [ipxe.hold_script(BOOT, ROW.mac), ipxe.refused_script(BOOT, ROW.mac), ipxe.stuck_script(BOOT, "n1", "a; ${b}\n|| c")]
)
def test_who_gets_no_kernel_asks_again(script: str) -> None:
    assert "kernel" not in script
    assert "initrd" not in script
    assert script.count("\n") == 5
    assert "chain --replace http://10.77.0.1:8080/boot?mac=${net0/mac}" in script


def test_a_node_may_mount_images_shared_and_its_own_state_only() -> None:
    table = Table(NetworkSpec(), (ROW, Row("n2", "52:54:00:77:00:02", "10.77.0.12", ROW.revision)))
    exports = [line for line in nfs.ganesha(NFS, table).splitlines() if line.startswith("EXPORT")]
    assert [line.split('Pseudo = "')[1].split('"')[0] for line in exports] == ["/images", "/shared", "/state/n1", "/state/n2"]
    assert "Clients = 10.77.0.11, 10.77.0.12; Access_Type = RO" in exports[0]
    assert "Clients = 10.77.0.11; Access_Type = RW" in exports[2]
    assert all("Access_Type = None" in line for line in exports)


def test_a_state_keeps_its_number_when_others_come() -> None:
    other = Row("a1", "52:54:00:77:00:02", "10.77.0.10", ROW.revision)
    assert nfs.state_ids(TABLE)[ROW] == nfs.state_ids(Table(NetworkSpec(), (other, ROW)))[ROW] == 27


def test_the_kernel_server_gets_the_same_rights() -> None:
    lines = nfs.kernel_exports(NFS, TABLE).splitlines()
    assert lines[1] == "/srv/images 10.77.0.11(ro,async,no_root_squash,no_subtree_check,fsid=1)"
    assert lines[3] == "/srv/state/n1 10.77.0.11(rw,sync,no_root_squash,no_subtree_check,fsid=27)"


def test_nothing_is_exported_while_there_are_no_machines() -> None:
    assert "CLIENT" not in nfs.ganesha(NFS, Table(NetworkSpec()))
    assert nfs.kernel_exports(NFS, Table(NetworkSpec())).count("\n") == 1
