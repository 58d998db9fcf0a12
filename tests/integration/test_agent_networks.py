"""Real agents give a job its own network at both ends of a move, and know it again when they are restarted."""

from dataclasses import replace

from crds import keys
from crds.job import JobSpec
from crds.load import Alive
from crds.network import FEATURE, HostEntry
from crds.placement import Placement, Role
from crds.report import ReportPhase
from nodeagent.engine import Network
from store.kv import Put
from tests.integration.agents import NAMESPACE, Cluster, Node, until
from tests.integration.moving import DESTINATION, SOURCE, check_moved, check_stayed, seen

UID = "uid-w-00000001"
NETWORK = Network("10.77.0.128/24", "52:54:0a:4d:00:80", "10.77.0.1")


async def running(cluster: Cluster) -> None:
    """The job w with a network of its own, on the source."""
    placement = Placement(
        uid=UID,
        epoch=1,
        role=Role.RUN,
        spec=JobSpec(command=["spin"]),
        address=NETWORK.address,
        mac=NETWORK.mac,
        gateway=NETWORK.gateway,
    )
    await cluster.write(Put(keys.placement(SOURCE, NAMESPACE, "w"), placement.to_json()))
    await cluster.reported(SOURCE, "w", ReportPhase.RUNNING)


def networks(cluster: Cluster) -> dict[str, Network | None]:
    """Of all copies, by node."""
    return {shim.node: shim.network for shim in cluster.world.copies(UID)}


async def test_it_goes_along_there_and_back(cluster: Cluster) -> None:
    await running(cluster)
    assert networks(cluster) == {SOURCE: NETWORK}
    assert await cluster.move("w", SOURCE, DESTINATION)
    await check_moved(cluster, UID)
    assert networks(cluster) == {DESTINATION: NETWORK}
    assert await cluster.move("w", DESTINATION, SOURCE)
    await cluster.only_on(UID, SOURCE)
    assert networks(cluster) == {SOURCE: NETWORK}


async def test_a_destination_that_died_before_it_began_still_knows_it(cluster: Cluster, destination: Node) -> None:
    await running(cluster)
    destination.moments.crash_at.add("Preparing.after")
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await destination.crashed()
    await destination.start()
    assert await ordered.decided()
    await check_moved(cluster, UID)
    assert networks(cluster) == {DESTINATION: NETWORK}


async def test_it_stays_with_a_job_whose_move_fails(cluster: Cluster, source: Node) -> None:
    await running(cluster)
    source.moments.crash_at.add("Freezing.after")
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await source.crashed()
    assert await seen(source, "Freezing.after")
    await source.start()
    assert not await ordered.decided()
    await check_stayed(cluster, UID)
    assert networks(cluster) == {SOURCE: NETWORK}


async def test_a_node_says_that_it_can_have_such_jobs(cluster: Cluster) -> None:
    kv = await cluster.kv.get(keys.alive(SOURCE))
    assert kv is not None and FEATURE in Alive.model_validate_json(kv.value).features


async def test_names_are_kept_where_the_agent_is_told_to(cluster: Cluster, source: Node) -> None:
    hosts = source.config.state.parent / "hosts"
    await source.stop()
    source.config = replace(source.config, hosts=hosts)
    await source.start()
    entry = HostEntry(address="10.77.0.128", names=["w.default.mx.local", "w.default", "w"])
    await cluster.write(Put(keys.host(NAMESPACE, "w"), entry.to_json()))

    async def named() -> bool:
        return hosts.exists() and "10.77.0.128 w.default.mx.local w.default w\n" in hosts.read_text()

    await until(named, "the name to be known")
