"""From what the cluster says to the table of machines: pure, over what the informers know."""

from clip.service.config import Config
from clip.table import Revision, Table, make_table
from crds import keys
from crds.cluster import Cluster, NetworkSpec
from crds.node import Node
from store.informer import Informer


def current_table(config: Config, node_objects: Informer, cluster_objects: Informer, refusals: Informer) -> Table:
    """As the informers stand now. Nodes that cannot be read are not served; the reconciler tells people about them."""
    clusters = cluster_objects.list(Cluster).items
    network = clusters[0].spec.network if clusters else NetworkSpec()
    nodes = node_objects.list(Node).items
    revisions = {node.name: revision_of(node, config) for node in nodes}
    refused = [item.key.removeprefix(keys.REFUSALS) for item in refusals.below(keys.REFUSALS)]
    return make_table(network, nodes, revisions, server=config.server, refused=refused)


def revision_of(_node: Node, config: Config) -> Revision | str:
    """What the node boots, or why there is nothing."""
    return config.revision or "no image was built yet: see mxctl get images"
