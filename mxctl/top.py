"""``mxctl top``: load by node or by job, as the nodes report it themselves."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from crds import keys
from crds.load import LoadVector
from crds.quantity import format_cpu, human_memory
from mxctl.core.reading import warn_of
from mxctl.core.session import Session, run
from mxctl.core.settings import Settings
from mxctl.core.verb import Verb
from mxctl.output.age import span
from mxctl.output.table import table
from store.objects import Broken, parse_or_broken

EXAMPLES = """
mxctl top nodes
mxctl top jobs --sort-by=memory
"""

BAR = 14  # characters
OLD = 10.0  # seconds after which a sample no longer says how things are; nodes write one every few seconds


@dataclass(frozen=True, slots=True)
class Sample:
    """What a node said of its load. ``alive``: its heartbeat is there. ``age`` in seconds."""

    node: str
    load: LoadVector
    alive: bool
    age: float

    @property
    def state(self) -> str:
        """Whether it can be believed."""
        if not self.alive:
            return "no heartbeat"
        return "stale" if self.age > OLD else "ok"


@click.command(cls=Verb, examples=EXAMPLES, short_help="Show load by node or by job")
@click.argument("what", type=click.Choice(["nodes", "node", "jobs", "job"]))
@click.option("--sort-by", type=click.Choice(["name", "cpu", "memory"]), default="name", show_default=True, help="Largest first.")
@click.option("--no-headers", is_flag=True, help="Without the line of titles.")
@click.pass_obj
def top(settings: Settings, what: str, sort_by: str, no_headers: bool) -> None:
    """Show load as the nodes report it: DEMAND is what the jobs would use had they a machine of their own, USED what they get.

    Demand above capacity means that jobs slow each other down: that is what the balancer looks at.
    """

    async def verb(session: Session) -> None:
        samples = await read_samples(session, datetime.now(UTC))
        if not samples:
            click.echo("No node reports its load.", err=True)
            return
        if what.startswith("job"):
            lines = table(*_jobs(samples, session.namespace, sort_by))
        elif sys.stdout.isatty():
            _draw(_sorted(samples, sort_by))
            return
        else:
            lines = table(*_nodes(_sorted(samples, sort_by)))
        click.echo("\n".join(lines[1:] if no_headers else lines))

    run(settings, verb)


async def read_samples(session: Session, now: datetime) -> list[Sample]:
    """One sample for each node that reports, by name. Broken ones are warned of."""
    page = await session.kv.list(keys.NODES)
    alive = {keys.parts(kv.key)[1] for kv in page.items if keys.parts(kv.key)[2:] == ["alive"]}
    samples = []
    for kv in page.items:
        _, node, *what = keys.parts(kv.key)
        if what != ["load"]:
            continue
        load = parse_or_broken(LoadVector, kv)
        if isinstance(load, Broken):
            warn_of([load])
        else:
            samples.append(Sample(node, load, node in alive, (now - load.time).total_seconds()))
    return samples


def _sorted(samples: Sequence[Sample], by: str) -> list[Sample]:
    if by == "name":
        return list(samples)
    return sorted(samples, key=lambda s: -(s.load.cpu_demand if by == "cpu" else s.load.memory_used))


def _nodes(samples: Sequence[Sample]) -> tuple[list[str], list[list[str]]]:
    titles = ["NAME", "DEMAND", "USED", "CORES", "DEMAND%", "MEMORY", "OF", "MEMORY%", "JOBS", "SAMPLE", "STATE"]
    return titles, [list(_cells(sample)) for sample in samples]


def _cells(sample: Sample) -> Iterator[str]:
    load = sample.load
    yield sample.node
    yield f"{load.cpu_demand:.2f}"
    yield f"{load.cpu_used:.2f}"
    yield format_cpu(load.cpu_capacity)
    yield _percent(load.cpu_demand, load.cpu_capacity)
    yield human_memory(load.memory_used)
    yield human_memory(load.memory_capacity)
    yield _percent(load.memory_used, load.memory_capacity)
    yield str(len(load.jobs))
    yield f"{span(sample.age)} ago"
    yield sample.state


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f}%" if whole else "-"


def _jobs(samples: Sequence[Sample], namespace: str, by: str) -> tuple[list[str], list[list[str]]]:
    """Of one namespace. While it is moved a job may show on two nodes; each says what is there."""
    found = [
        (job.removeprefix(f"{namespace}/"), sample, load)
        for sample in samples
        for job, load in sample.load.jobs.items()
        if job.startswith(f"{namespace}/")
    ]
    found.sort(key=lambda row: (0.0 if by == "name" else -(row[2].cpu_demand if by == "cpu" else row[2].memory), row[0]))
    rows = [
        [name, sample.node, f"{load.cpu_demand:.2f}", f"{load.cpu_used:.2f}", human_memory(load.memory), sample.state]
        for name, sample, load in found
    ]
    return ["NAME", "NODE", "DEMAND", "USED", "MEMORY", "STATE"], rows


def _draw(samples: Sequence[Sample]) -> None:
    """For a terminal: the same with bars."""
    from rich.console import Console  # late: only a terminal needs it
    from rich.table import Table

    picture = Table(box=None, pad_edge=False)
    for title in ("NODE", "DEMAND OF CORES", "", "MEMORY", "", "JOBS", "STATE"):
        picture.add_column(title)
    for sample in samples:
        load = sample.load
        picture.add_row(
            sample.node,
            _bar(load.cpu_demand, load.cpu_capacity),
            f"{load.cpu_demand:.2f}/{format_cpu(load.cpu_capacity)}",
            _bar(load.memory_used, load.memory_capacity),
            f"{human_memory(load.memory_used)}/{human_memory(load.memory_capacity)}",
            str(len(load.jobs)),
            sample.state if sample.state == "ok" else f"[red]{sample.state}[/red]",
        )
    Console().print(picture)


def _bar(part: float, whole: float) -> str:
    """Green, yellow from 70 per cent on, red when there is more than fits."""
    share = part / whole if whole else 0.0
    colour = "red" if share > 1 else "yellow" if share > 0.7 else "green"
    filled = min(BAR, round(share * BAR))
    return f"[{colour}]{'█' * filled}[/{colour}][dim]{'░' * (BAR - filled)}[/dim]"
