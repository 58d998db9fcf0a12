"""Cluster and Image: how many, how many of them ready, which. Figures for people; nothing is decided by them."""

from collections.abc import Iterable

from crds.cluster import Cluster
from crds.image import Image
from crds.job import Job, JobPhase
from crds.meta import Resource, is_true
from crds.node import READY, Node
from reconciler.context import Context
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again
from reconciler.world import Delta, World

EVERY = 1.0
"""Seconds between two countings at least."""
RUNS = frozenset({JobPhase.RUNNING, JobPhase.MOVING})


def _clusters(world: World) -> Iterable[str]:
    return [cluster.name for cluster in world.all(Cluster)]


def _images(world: World) -> Iterable[str]:
    return [image.name for image in world.all(Image)]


def _counts_differ(delta: Delta, world: World) -> Iterable[str]:
    return _clusters(world) if _counted(delta.old) != _counted(delta.new) else []


def _counted(obj: object) -> object:
    if isinstance(obj, Node):
        return is_true(obj.status.conditions, READY)
    return obj.status.phase in RUNS if isinstance(obj, Job) else None


def _images_differ(delta: Delta, world: World) -> Iterable[str]:
    old, new = (node.spec.image if isinstance(node, Node) else None for node in (delta.old, delta.new))
    return {image for image in (old, new) if image} if old != new else set()


def _own_name(delta: Delta, _: World) -> Iterable[str]:
    return [delta.parts[3]] if isinstance(delta.new, Resource) else []


@controller(
    "cluster",
    kind=Cluster,
    start=_clusters,
    watches=[
        Watch("kinds/clusters/", _own_name),
        Watch("kinds/nodes/", _counts_differ),
        Watch("kinds/jobs/", _counts_differ),
    ],
)
async def reconcile_cluster(context: Context, name: str) -> Again:
    cluster = context.world.find(Cluster, name)
    if cluster is None:
        return DONE
    wait = EVERY - context.stopwatch.passed(("cluster", name))
    if wait > 0:
        return Again(wait)
    new, nodes = cluster.model_copy(deep=True), context.world.all(Node)
    new.status.observed_generation = cluster.metadata.generation
    new.status.nodes = len(nodes)
    new.status.ready_nodes = sum(1 for node in nodes if is_true(node.status.conditions, READY))
    new.status.running_jobs = sum(1 for job in context.world.all(Job) if job.status.phase in RUNS)
    if new.status != cluster.status:
        context.stopwatch.restart(("cluster", name))
        await context.store.update_status(new)
    return DONE


@controller(
    "image",
    kind=Image,
    start=_images,
    watches=[Watch("kinds/images/", _own_name), Watch("kinds/nodes/", _images_differ)],
)
async def reconcile_image(context: Context, name: str) -> Again:
    image = context.world.find(Image, name)
    if image is None:
        return DONE
    new = image.model_copy(deep=True)
    new.status.observed_generation = image.metadata.generation
    new.status.nodes = [node.name for node in context.world.all(Node) if node.spec.image == name]
    if new.status != image.status:
        await context.store.update_status(new)
    return DONE
