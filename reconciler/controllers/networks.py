"""Networks of jobs' own: an address and a MAC, reserved when the job is first placed, freed when it is deleted.

The reservation, the name under which others find the job, and the job's status that says so are one write with its placement.
Whatever is left of a job that went another way (somebody took its finalizer, say) is swept away by the garbage controller.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from crds import keys
from crds.job import Job, NetworkMode
from crds.network import HostEntry, names_of
from crds.node import Node
from reconciler.context import Context
from reconciler.planning.addresses import choose_address
from reconciler.world import World, work_key
from store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Address:
    """What belongs to one job."""

    address: str
    mac: str


def address_for(world: World, job: Job) -> Address | None:
    """What the job has, or may take now; None when it uses its node's network. Raises NoAddress."""
    if job.spec.network.mode != NetworkMode.OWN:
        return None
    status = job.status
    if status.address and status.mac and all(_is_free(world, job, value) for value in (status.address, status.mac)):
        return Address(status.address, status.mac)
    return Address(*choose_address(world.cluster.network, _taken(world)))


def reserve(transaction: Transaction, world: World, job: Job, own: Address) -> None:
    """Adds the reservations and the name; ``job`` is the copy whose status is about to be written."""
    key, host = work_key(job), keys.host(job.namespace, job.name)
    for value in (own.address, own.mac):
        reserved = keys.address(value)
        transaction.expect(*world.expect(reserved)).put_text(reserved, key)
    names = names_of(job.namespace, job.name, world.cluster.network.domain)
    transaction.expect(*world.expect(host)).put(host, HostEntry(address=own.address, names=names))
    job.status.address, job.status.mac, job.status.names = own.address, own.mac, names


async def release(context: Context, job: Job) -> None:
    """Nothing of the job is left anywhere: others may have its address."""
    await _delete(context, [key for key, owner in _all(context.world) if owner == work_key(job)])


async def sweep_networks(context: Context) -> None:
    """Reservations and names of jobs that are gone, or that have others."""
    world = context.world
    for key, owner in list(_all(world)):
        job = world.find(Job, owner)
        if (job is None and not world.is_there(Job, owner)) or (job is not None and not _has(world, job, key)):
            await _delete(context, [key], world.object_key(Job, owner))


async def _delete(context: Context, found: list[str], *relied_on: str) -> None:
    if found:
        transaction = context.store.transaction().expect(*context.world.expect(*found, *relied_on))
        for key in found:
            transaction.delete(key)
        await transaction.commit()


def _all(world: World) -> Iterator[tuple[str, str]]:
    """Key and owner of all that jobs have reserved."""
    yield from ((seen.key, seen.value.owner) for seen in world.addresses.values() if seen.value.is_of_job)
    yield from ((seen.key, job) for job, seen in world.hosts.items())


def _has(world: World, job: Job, key: str) -> bool:
    host = world.hosts.get(work_key(job))
    if host is not None and host.key == key:
        return host.value.address == job.status.address
    return key in {keys.address(value) for value in (job.status.address, job.status.mac) if value}


def _is_free(world: World, job: Job, value: str) -> bool:
    """Nobody else has it."""
    seen = world.addresses.get(value)
    return seen is None or seen.value.owner == work_key(job)


def _taken(world: World) -> set[str]:
    """Reserved, or used by a node that was declared behind our back or that says so itself."""
    declared = [value for node in world.all(Node) for value in (node.spec.address, node.spec.mac) if value]
    heard = [seen.value.address.rpartition(":")[0] for seen in world.alive.values()]
    return {*world.addresses, *declared, *heard}
