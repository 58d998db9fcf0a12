"""What a machine should boot, from what people declared. Pure."""

from crds.assignment import Assignment
from crds.cluster import ClusterSpec
from crds.node import Node


def wanted_assignment(cluster: ClusterSpec, node: Node, image: str, revision: str) -> Assignment:
    """For the node as it is declared, with this revision (a digest) of this image."""
    network = cluster.network
    return Assignment(
        image=image,
        revision=revision,
        kernel_arguments=[*cluster.kernel_arguments, *node.spec.kernel_arguments],
        address=node.spec.address,
        cidr=network.cidr,
        gateway=network.gateway,
        dns=list(network.dns),
        domain=network.domain,
        mounts=list(cluster.mounts),
    )


def runs(image: str, booted: str, assignment: Assignment) -> bool:
    """Whether a machine that reports this image and this assignment's digest runs the assignment.

    An agent that knows no assignment (its machine is not booted by mx) is believed by its image.
    """
    return booted == assignment.digest if booted else bool(image) and image == assignment.revision
