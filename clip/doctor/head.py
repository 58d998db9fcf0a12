"""Checks of the head: its programs, its NFS server's settings, its disks, the layers that nodes boot, its certificates."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from clip.doctor.model import Disk, Facts, Finding, HeadFacts, fail, fine, warn
from crds.image import Image

GIB = 1 << 30
FREE_FAIL, FREE_WARN = GIB, 5 * GIB
"""Bytes: etcd stops when its disk is full, and an image takes some hundred MiB."""
CERTIFICATE_DAYS = 30
UNITS = {"etcd": "mx-etcd", "clip": "mx-clip", "join": "mx-join", "dnsmasq": "mx-dnsmasq", "nfs": "mx-nfs"}
GANESHA = {
    "Minor_Versions = 0, 1": "clients may take NFS 4.2, with which it has returned zeros for data",
    "Only_Numeric_Owners = true": "owners of files depend on names that nodes may not know",
}


def head_seen(facts: Facts) -> Iterator[Finding]:
    """Elsewhere than on the head its programs cannot be looked at."""
    if facts.head is None:
        yield fine("head", "head", "is another machine, and was not looked at: run mxctl doctor there")


def programs_answer(facts: Facts) -> Iterator[Finding]:
    """What should run on the head does what it is for."""
    for name, problem in sorted(facts.head.answers.items()) if facts.head else ():
        version = facts.head.versions.get(name, "") if facts.head else ""
        if problem:
            remedy = f"systemctl status {UNITS.get(name, name)}; journalctl -u {UNITS.get(name, name)}"
            yield fail("head", name, f"does not answer: {problem}", remedy)
        else:
            yield fine("head", name, f"answers{f', version {version}' if version else ''}")


def nfs_options(facts: Facts) -> Iterator[Finding]:
    """Settings whose absence has cost data."""
    if facts.head is None or "nfs" not in facts.head.services or facts.head.backend != "ganesha":
        return
    lacking = [(setting, why) for setting, why in GANESHA.items() if setting not in facts.head.nfs]
    for setting, why in lacking if facts.head.nfs else ():
        yield fail("nfs", facts.head.where, f'its configuration lacks "{setting}": {why}', "restart mx-clip, which writes it")
    if not facts.head.nfs:
        yield warn("nfs", facts.head.where, "nfs-ganesha has no configuration yet", "mx-clip writes it when it runs")
    elif not lacking:
        yield fine("nfs", facts.head.where, "nfs-ganesha serves version 4.1 at most, with owners by number")


def free_space(facts: Facts) -> Iterator[Finding]:
    """Of each file system that the head keeps something on."""
    for disk in facts.head.disks if facts.head else ():
        yield _free(disk)


def _free(disk: Disk) -> Finding:
    if disk.error:
        return fail("disk", disk.what, f"{disk.path}: {disk.error}", f"make {disk.path}, or mount it")
    text = f"{disk.free / GIB:.1f} of {disk.total / GIB:.1f} GiB are free at {disk.path}"
    if disk.free < FREE_FAIL:
        return fail("disk", disk.what, text, "free some, e.g. by mxctl image rm of old revisions")
    return warn("disk", disk.what, text, "make more room soon") if disk.free < FREE_WARN else fine("disk", disk.what, text)


def image_layers(facts: Facts) -> Iterator[Finding]:
    """All that a node may be told to boot is there."""
    if facts.head is None or "clip" not in facts.head.services:
        return
    images = {image.name: image for image in facts.images}
    wanted = [(f"image/{image.name}", image, image.status.current_revision) for image in facts.images]
    for each in facts.nodes:
        assigned = each.node.status.assigned
        if assigned is None:
            continue
        image = images.get(assigned.image)
        if image is None or image.status.of_digest(assigned.revision) is None:
            text = f"it is assigned image/{assigned.image} {assigned.revision}, which is not there any more: it cannot boot"
            yield fail("images", f"node/{each.name}", text, f"mxctl rollout node {each.name}")
    missing = 0
    for subject, _, revision in wanted:
        for layer in [*revision.layers, revision.boot] if revision else ():
            if layer and layer not in facts.head.layers:
                missing += 1
                yield fail("images", subject, f"layer {layer} is not on the shelf: nodes cannot boot it", "mxctl image build")
    built = [image for image in facts.images if image.status.current is not None]
    if built and not missing:
        yield fine("images", "images", f"the layers of all {len(built)} images are there")
    yield from _unbuilt(facts.images)


def _unbuilt(images: tuple[Image, ...]) -> Iterator[Finding]:
    for image in images:
        if image.status.current is None:
            yield warn("images", f"image/{image.name}", "has no revision: its nodes cannot boot", f"mxctl image build {image.name}")


def head_address(facts: Facts) -> Iterator[Finding]:
    """What the Cluster says of the network has to fit the head's card."""
    if facts.head is None or facts.network is None or not facts.head.server:
        return
    if IPv4Address(facts.head.server) not in IPv4Network(facts.network.cidr):
        text = f"its address {facts.head.server} is not in the cluster's network {facts.network.cidr}: no machine reaches it"
        yield fail("network", facts.head.where, text, "set spec.network.cidr of the Cluster, mxctl apply")
    yield from _forwarding(facts.head, facts.network.gateway)


def _forwarding(head: HeadFacts, gateway: str | None) -> Iterator[Finding]:
    if gateway == head.server and head.sysctls.get("net.ipv4.ip_forward") == "0":
        text = "it is the nodes' gateway and passes nothing on: net.ipv4.ip_forward is 0"
        yield warn("network", head.where, text, "sysctl -w net.ipv4.ip_forward=1, and in /etc/sysctl.d")


def own_certificates(facts: Facts) -> Iterator[Finding]:
    """Of the authority, of the head's services, and the one we come with."""
    worst = None
    for each in facts.certificates:
        if each.error or each.until is None:
            yield fail("certificates", each.file, each.error or "it has no end", "mxctl head init makes a new one")
            continue
        days = (each.until - facts.now).total_seconds() / 86400
        if days < 0:
            yield fail("certificates", each.file, f"of {each.holder}: ended {each.until:%F %R}", "mxctl head init makes a new one")
        elif days < CERTIFICATE_DAYS:
            yield warn("certificates", each.file, f"of {each.holder}: ends {each.until:%F}", "mxctl head init makes a new one")
        worst = min(worst or each.until, each.until)
    if worst is not None and (worst - facts.now).days >= CERTIFICATE_DAYS:
        yield fine("certificates", "head", f"{len(facts.certificates)} are good, the first until {worst:%F}")


CHECKS = (head_seen, programs_answer, nfs_options, free_space, image_layers, head_address, own_certificates)
