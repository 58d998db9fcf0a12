"""A Placement as every controller writes it: all of it follows from the Job and the Cluster, but the role and the epoch."""

from ipaddress import IPv4Network

from crds.job import Job
from crds.placement import MoveOrder, Placement, Role
from reconciler.runtime.outcome import Terminal
from reconciler.world import World


def placement_of(world: World, job: Job, role: Role, epoch: int, move: MoveOrder | None = None) -> Placement:
    """For the job as its status is about to be: with the address that is reserved for it."""
    if job.metadata.uid is None:
        raise Terminal("NoUid", f"{job.label} has no uid: delete it and create it with mxctl")
    network, status = world.cluster.network, job.status
    own = status.address is not None
    return Placement(
        uid=job.metadata.uid,
        epoch=epoch,
        life=status.life,
        role=role,
        spec=job.spec,
        address=f"{status.address}/{IPv4Network(network.cidr).prefixlen}" if own else None,
        mac=status.mac,
        gateway=network.gateway if own else None,
        move=move,
    )
