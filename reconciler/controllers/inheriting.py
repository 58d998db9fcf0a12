"""The directory of a job that is deleted while no node has it: between two lives, or when its node is gone for good.

Only agents reach the shared file system, so one of them is told to have the job as if it had ended there; from then on it is
deleted like any other.
"""

from crds import keys
from crds.job import Job
from crds.node import Node
from crds.placement import Placement, Role
from reconciler.context import Context
from reconciler.controllers.placing import placement_of
from reconciler.controllers.readiness import is_ready, is_written_off
from reconciler.world import World


def is_orphan(world: World, job: Job) -> bool:
    """Whether it was started once, and nobody who could remove its directory has it. To be asked when it is placed nowhere."""
    return job.status.epoch > 0 and (job.status.node is None or is_written_off(world, job.status.node))


def waits_for_heir(world: World, node: str, job: str, placement: Placement) -> bool:
    """Whether that node was told to have it, and has not said yet that it does."""
    if placement.role != Role.INHERIT or is_written_off(world, node):
        return False
    report = world.reports.find(node, job)
    return report is None or (report.value.uid, report.value.epoch) != (placement.uid, placement.epoch)


async def give_away(context: Context, job: Job) -> bool:
    """To the first Ready node. False: there is none."""
    world = context.world
    heir = next((node.name for node in world.all(Node) if is_ready(world, node.name)), None)
    if heir is None:
        return False
    new = job.model_copy(deep=True)
    new.status.node, new.status.epoch = heir, new.status.epoch + 1
    new.status.message = f"is being deleted: node/{heir} is to remove its directory"
    key = keys.placement(heir, job.namespace, job.name)
    order = placement_of(world, new, Role.INHERIT, new.status.epoch)
    transaction = context.store.transaction().expect(*world.expect(key, keys.alive(heir)))
    await transaction.put(key, order).put_status(new).commit()
    return True
