"""``mxctl simulate``: a policy in virtual time, beside others, on jobs that a file describes. No cluster is needed."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mxctl.core.failures import Failure
from mxctl.core.scenarios import Given, read_policy, read_scenario
from mxctl.core.verb import Verb
from mxctl.output.table import table
from reconciler.simulation.cluster import Endless
from reconciler.simulation.compare import Figures, figures
from reconciler.simulation.compare import simulate as run_one
from reconciler.simulation.methods import OURS, Method, known, method
from reconciler.simulation.outcome import Outcome
from reconciler.simulation.work import Work

EXAMPLES = """
mxctl simulate -f docs/scenario.yaml
# what would this policy be worth? Ask before you merge it
mxctl simulate -f docs/scenario.yaml --policy cluster/policy.yaml --against mosix,none
mxctl simulate -f docs/scenario.yaml --seeds 20 --json | jq '.methods[] | {name, mean}'
mxctl simulate -f docs/scenario.yaml --plot load.svg
"""

KINDS = (".svg", ".png")


@dataclass(frozen=True, slots=True)
class Run:
    """One method on one seed's jobs."""

    method: Method
    seed: int
    outcome: Outcome
    figures: Figures


@click.command(cls=Verb, examples=EXAMPLES, short_help="Try a policy in virtual time, beside others")
@click.option("-f", "--filename", "file", required=True, help='File with a Scenario, or "-".')
@click.option("--policy", "policy_file", help="File with the BalancePolicy to try, in place of the scenario's.")
@click.option("--against", default="mosix,none", show_default=True, help='Methods beside it, with commas; "all", or "" for none.')
@click.option("--seeds", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Runs of each method, on other jobs.")
@click.option("--json", "as_json", is_flag=True, help="For programs: all figures, and the moves with their reasons.")
@click.option("--plot", help="Draw load by node over time, and the moves, into this .svg or .png.")
def simulate(file: str, policy_file: str | None, against: str, seeds: int, as_json: bool, plot: str | None) -> None:
    """Run the balancer's own code under a virtual clock, on the nodes and jobs of a scenario, and others on the very same jobs.

    The scenario says nodes (cores, memory, speed), jobs (a list, random streams, or a trace in the Standard Workload Format), what
    a move costs and how often one fails, how late and how wrong load samples are, and the policy. Equal input gives equal output.

    SLOWDOWN is how many times longer than alone on the best node a job took; WASTED are moves undone within ten minutes although
    no job came or ended in between. Methods: mx (the policy), mosix, threshold, none, random, pvm, least-loaded, two-choices,
    enhanced-pvm, enhanced-mosix.
    """
    if plot and not plot.endswith(KINDS):
        raise Failure(f"--plot {plot}: ends neither with .svg nor with .png")
    given = read_scenario(file)
    policy = read_policy(policy_file) if policy_file else given.scenario.spec.policy
    methods = [method(name, policy) for name in _names(against)]
    works = [given.works(given.scenario.spec.seed + i) for i in range(seeds)]
    if plot:
        _writable(plot)
    with _progress(sum(map(len, works)) * len(methods)) as progress:
        runs = [_run(given, one, i, work, bool(plot) and i == 0, progress) for one in methods for i, work in enumerate(works)]
    if plot:
        _draw(plot, given, runs)
    click.echo(json.dumps(_data(given, runs)) if as_json else "\n".join(_lines(given, runs, seeds)))


def _names(against: str) -> list[str]:
    names = known() if against == "all" else [name.strip() for name in against.split(",") if name.strip()]
    wrong = [name for name in names if name not in known()]
    if wrong:
        raise Failure(f'--against: "{wrong[0]}" is no method; there are: {", ".join(known())}')
    return list(dict.fromkeys([OURS, *names]))


def _run(given: Given, one: Method, number: int, works: Sequence[Work], trace: bool, progress: Callable[[], None]) -> Run:
    spec = given.scenario.spec
    seed, nodes = spec.seed + number, spec.views()
    try:
        outcome = run_one(one, nodes, works, spec.physics(one.aged), seed=seed, trace=trace, progress=lambda _: progress())
    except Endless as error:
        raise Failure(f"scenario/{given.name}: under {one.name}: {error}") from error
    return Run(one, seed, outcome, figures(outcome, nodes, works))


@contextmanager
def _progress(jobs: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("simulating"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} jobs"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=jobs)
        yield lambda: bar.advance(task)


def _writable(plot: str) -> None:
    """Said before a long run, not behind it."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise Failure("--plot: the picture is drawn by matplotlib, which is missing: pip install 'mx[plot]'")
    if not Path(plot).resolve().parent.is_dir():
        raise Failure(f"--plot {plot}: there is no such directory")


def _draw(plot: str, given: Given, runs: Sequence[Run]) -> None:
    from mxctl.output.loadplot import draw

    first = [(run.method.name, run.outcome) for run in runs if run.outcome.loads]
    try:
        draw(plot, first, [view.name for view in given.scenario.spec.views()])
    except OSError as error:
        raise Failure(f"--plot {plot}: cannot be written: {error.strerror}") from error


TITLES = ("METHOD", "SLOWDOWN", "P95", "P99", "MAKESPAN", "/BOUND", "MOVES", "FAILED", "UNDONE", "WASTED", "FAIRNESS")


def _lines(given: Given, runs: Sequence[Run], seeds: int) -> Iterator[str]:
    rows = []
    for name, of in _by_method(runs):
        mean = _mean([run.figures for run in of])
        rows.append(
            [
                name,
                *(f"{mean[figure]:.2f}" for figure in ("mean", "p95", "p99")),
                f"{mean['makespan']:.0f}s",
                f"{mean['bound']:.2f}",
                *(f"{mean[figure]:.4g}" for figure in ("moves", "failed", "returned", "wasted")),
                f"{mean['fairness']:.2f}",
            ]
        )
    yield from table(TITLES, rows)
    spec = given.scenario.spec
    first = runs[0].figures
    yield ""
    yield f"{first.jobs} jobs on {len(spec.views())} nodes" + (f", mean of {seeds} runs" if seeds > 1 else "")
    yield f"a move: {spec.physics(False).move.describe()}; short of memory a node is {spec.thrash:g} times slower"


def _data(given: Given, runs: Sequence[Run]) -> dict[str, Any]:
    methods = [
        {
            "name": name,
            "what": of[0].method.what,
            **{figure: round(value, 4) for figure, value in _mean([run.figures for run in of]).items()},
            "runs": [{"seed": run.seed, **run.figures.to_data()} for run in of],
            "moves_of_the_first_run": [
                {"time": m.time, "job": m.job, "from": m.source, "to": m.destination, "ok": m.ok, "reason": m.reason}
                for m in of[0].outcome.moves
            ],
        }
        for name, of in _by_method(runs)
    ]
    return {"scenario": given.name, "policy": runs[0].method.what, "methods": methods}


def _by_method(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    names = dict.fromkeys(run.method.name for run in runs)
    return [(name, [run for run in runs if run.method.name == name]) for name in names]


def _mean(found: Sequence[Figures]) -> dict[str, float]:
    data = [figures.to_data() for figures in found]
    return {name: sum(one[name] for one in data) / len(data) for name in data[0]}
