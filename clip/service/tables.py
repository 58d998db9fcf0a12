"""From what the cluster says to the table of machines: pure, over what the informers know."""

from collections.abc import Mapping
from dataclasses import replace

from clip import systemd
from clip.service.config import Config
from clip.table import Revision, Table, make_table
from crds import image as image_kind
from crds import keys
from crds.assignment import Assignment, Mount
from crds.cluster import Cluster, NetworkSpec
from crds.image import Image
from crds.node import Node
from store.informer import Informer


def current_table(
    config: Config, node_objects: Informer, cluster_objects: Informer, image_objects: Informer, refusals: Informer
) -> Table:
    """As the informers stand now. Nodes that cannot be read are not served; the reconciler tells people about them."""
    clusters = cluster_objects.list(Cluster).items
    network = clusters[0].spec.network if clusters else NetworkSpec()
    nodes = node_objects.list(Node).items
    images = {image.name: image for image in image_objects.list(Image).items}
    revisions = {node.name: revision_of(node, images, config) for node in nodes}
    refused = [item.key.removeprefix(keys.REFUSALS) for item in refusals.below(keys.REFUSALS)]
    return make_table(network, nodes, revisions, server=config.server, refused=refused)


def revision_of(node: Node, images: Mapping[str, Image], config: Config) -> Revision | str:
    """What the node boots, or why there is nothing.

    What it is assigned, whatever is newest by now; the current revision of its image until it is assigned one; and as long as its
    image was never built, or it names none, what mx-clip was started with.
    """
    assigned = node.status.assigned
    name = assigned.image if assigned else node.spec.image
    image = images.get(name) if name else None
    if assigned is not None:
        found = image.status.of_digest(assigned.revision) if image else None
        if found is None:
            return f"image/{assigned.image} has no revision {assigned.revision}, which it is assigned: see mxctl image list"
        return _complete(found, config, boot_words(assigned))
    current = image.status.current_revision if image else None
    if current is not None:
        return _complete(current, config, [])
    if config.revision is None:
        return f"image {name} was not built yet: see mxctl get images" if name else "it names no image: set spec.image"
    return replace(config.revision, arguments=_line([config.arguments, config.revision.arguments]))


def _complete(revision: image_kind.Revision, config: Config, more: list[str]) -> Revision:
    init = systemd.KERNEL_ARGUMENTS if revision.init is image_kind.Init.SYSTEMD else ()
    words = [config.arguments, *revision.kernel_arguments, *init, *more]
    return Revision(revision.digest, tuple(revision.layers), revision.boot, _line(words))


def _line(words: list[str]) -> str:
    return " ".join(word for word in words if word)


def boot_words(assigned: Assignment) -> list[str]:
    """Words of the kernel line: people's own, then what the initramfs and the agent have to know of the assignment."""
    words = list(assigned.kernel_arguments)
    if assigned.dns:
        words.append(f"mx.dns={','.join(assigned.dns)}")
    if assigned.domain:
        words.append(f"mx.domain={assigned.domain}")
    words += [_mount(mount) for mount in assigned.mounts]
    return [*words, f"mx.assigned={assigned.digest}"]


def _mount(mount: Mount) -> str:
    """A comma parts the fields, so options have a plus between them."""
    return f"mx.mount={mount.source},{mount.target},{mount.type},{mount.options.replace(',', '+')}"
