"""A Placement as every controller writes it: all of it follows from the Job and the Cluster, but the role and the epoch."""

from ipaddress import IPv4Network

from crds.balancepolicy import TimeSharing
from crds.cluster import ClusterSpec
from crds.job import Fencing, Job
from crds.placement import MoveOrder, Placement, Role
from reconciler.controllers.policy import in_force
from reconciler.runtime.outcome import Terminal
from reconciler.world import World


def fencing_of(job: Job, cluster: ClusterSpec) -> Fencing:
    """What a node does with the job when it lost touch: the job's own wish, else the cluster's."""
    return job.spec.fencing or cluster.fencing


def time_sharing(world: World) -> TimeSharing:
    """How the jobs of a node share its CPU: as the policy in force says."""
    policy = in_force(world)
    return policy.spec.time_sharing if policy else TimeSharing.FAIR


def dropped(placement: Placement, epoch: int) -> Placement:
    """For a node from which the job was taken away while it was silent: when it is back it ends its stale copy."""
    return placement.model_copy(update={"role": Role.DROP, "epoch": epoch, "move": None, "checkpoint": None})


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
        fencing=fencing_of(job, world.cluster),
        time_sharing=time_sharing(world),
        address=f"{status.address}/{IPv4Network(network.cidr).prefixlen}" if own else None,
        mac=status.mac,
        gateway=network.gateway if own else None,
        move=move,
    )
