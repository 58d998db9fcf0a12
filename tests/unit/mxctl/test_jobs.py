"""run, wait, logs, delete and migrate: what a person does with a job, and how it ends."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from crds.job import RUNNING, STOP_FINALIZER, Job, JobPhase, NetworkMode
from crds.meta import RECONCILED, Metadata, set_condition
from crds.migration import CANCELLED, FAILED, REFUSED, Migration, MigrationPhase, MigrationSpec
from crds.node import Node
from store.objects import utcnow
from store.store import Store
from tests.resources import node
from tests.unit.mxctl.terminal import Terminal, appears, job


def end(phase: JobPhase, code: int | None) -> Any:
    def change(found: Job) -> None:
        found.status.phase = phase
        found.status.exit_code = code

    return change


# --- run ---


def test_run_makes_a_job_of_what_was_typed(terminal: Terminal) -> None:
    terminal.create(node())
    said = terminal.run(
        "run", "--name", "w", "--on", "n1", "--pin", "--cpu", "500m", "--memory", "512Mi", "--env", "A=b=c", "--label", "app=sim",
        "--workdir", "/shared/w", "--", "python3", "-c", "print(1)\nprint(2)",
    )  # fmt: skip
    assert (said.code, said.out, said.err) == (0, "job/w created\n", "")
    made = terminal.do(lambda store: store.get(Job, "w"))
    assert made.spec.command == ["python3", "-c", "print(1)\nprint(2)"]
    assert (made.spec.resources.cpu, made.spec.resources.memory) == (0.5, 512 * 2**20)
    assert (made.spec.placement.node, made.spec.placement.pinned) == ("n1", True)
    assert (made.spec.env, made.spec.workdir, made.metadata.labels) == ({"A": "b=c"}, "/shared/w", {"app": "sim"})


def test_run_takes_a_budget_for_the_freeze(terminal: Terminal) -> None:
    assert terminal.run("run", "--name", "w", "--freeze-budget", "500ms", "--hard-budget", "--", "ls").code == 0
    made = terminal.do(lambda store: store.get(Job, "w")).spec.migration
    assert (made.freeze_budget, made.hard_budget) == (0.5, True)
    said = terminal.run("run", "--hard-budget", "--", "ls")
    assert (said.code, said.err) == (1, "Error: --hard-budget needs a budget: add --freeze-budget, e.g. 500ms\n")


def test_migrate_asks_for_a_way_of_moving(terminal: Terminal) -> None:
    terminal.create(node(), node("n2"), job("w"))
    assert terminal.run("migrate", "w", "n2", "--mode", "post-copy").code == 0
    (made,) = terminal.do(lambda store: store.list(Migration, "default")).items
    assert made.spec.mode == "post-copy"
    assert terminal.run("migrate", "w", "n2", "--mode", "teleport").code == 1


def test_run_takes_options_up_to_the_program_only(terminal: Terminal) -> None:
    assert terminal.run("run", "--name", "w", "ls", "--name", "x").code == 0
    assert terminal.do(lambda store: store.get(Job, "w")).spec.command == ["ls", "--name", "x"]


def test_run_with_a_network_of_its_own(terminal: Terminal) -> None:
    assert terminal.run("run", "--name", "w", "--network", "own", "--", "true").code == 0
    assert terminal.do(lambda store: store.get(Job, "w")).spec.network.mode == NetworkMode.OWN


def test_run_without_io_uring(terminal: Terminal) -> None:
    assert terminal.run("run", "--name", "w", "--no-io-uring", "--freeze-budget", "1s", "--", "node", "x.js").code == 0
    made = terminal.do(lambda store: store.get(Job, "w")).spec.migration
    assert (made.io_uring, made.freeze_budget) == (False, 1.0)


def test_run_on_a_node_that_is_not_there(terminal: Terminal) -> None:
    said = terminal.run("run", "--name", "w", "--on", "n9", "--", "true")
    assert (said.code, said.out, said.err) == (1, "", "Error from server (NotFound): node/n9 does not exist\n")
    assert terminal.run("get", "job", "w").code == 1


def test_run_refuses_what_no_node_could_start(terminal: Terminal) -> None:
    said = terminal.run("run", "--workdir", "work", "--", "true")
    assert (said.code, said.out) == (1, "")
    assert said.err == 'Error: spec.workdir: "work" is no directory of a node: it must begin with "/", e.g. /shared/work\n'


def test_run_names_the_job_after_the_program(terminal: Terminal) -> None:
    assert terminal.run("run", "--", "./My_Sim.py").out.startswith("job/my-sim-")
    assert terminal.run("run", "--", "/bin/[").out.startswith("job/job-")


@pytest.mark.parametrize(
    ("phase", "code", "ends"),
    [(JobPhase.SUCCEEDED, 0, 0), (JobPhase.FAILED, 3, 3), (JobPhase.FAILED, 137, 137), (JobPhase.FAILED, None, 1)],
)
def test_run_wait_ends_like_the_job(terminal: Terminal, phase: JobPhase, code: int | None, ends: int) -> None:
    async def work(store: Store) -> None:
        made = await appears(store, Job)
        await store.change_status(Job, made.name, None, end(phase, code))

    assert terminal.run("run", "--name", "w", "--wait", "--", "true", meanwhile=work).code == ends


def test_run_wait_tells_when_the_job_is_deleted_instead(terminal: Terminal) -> None:
    async def remove(store: Store) -> None:
        made = await appears(store, Job)
        await store.delete(Job, made.name)
        await store.remove_finalizer(made, STOP_FINALIZER)

    said = terminal.run("run", "--name", "w", "--wait", "--", "true", meanwhile=remove)
    assert (said.code, said.err) == (1, "Error: job/w was deleted before it ended\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cpu", "many"], "'many' is not a number of cores"),
        (["--memory", "1Zi"], "'1Zi' is not an amount of memory"),
        (["--env", "A"], '"A" is not KEY=VALUE'),
        (["--name", "A_"], '"A_" is no name'),
        (["--pin"], "--pin needs a node to pin to"),
    ],
)
def test_run_refuses_what_it_cannot_read(terminal: Terminal, options: list[str], message: str) -> None:
    before = terminal.revision
    said = terminal.run("run", *options, "--", "true")
    assert (said.code, terminal.revision) == (1, before)
    assert message in said.err


def test_a_name_that_is_taken(terminal: Terminal) -> None:
    terminal.create(job())
    said = terminal.run("run", "--name", "w", "--", "true")
    assert said.code == 1
    assert said.err.startswith("Error from server (AlreadyExists): job/w exists already")


# --- wait ---


async def begin(store: Store) -> None:
    def change(found: Job) -> None:
        found.status.node = "n1"
        found.status.conditions = set_condition(found.status.conditions, RUNNING, True, "Started", "", utcnow())

    await store.change_status(Job, "w", None, change)


@pytest.mark.parametrize(
    "goal", ["condition=Running", "condition=Running=true", "jsonpath={.status.node}=n1", "jsonpath={.status.node}"]
)
def test_wait_until_it_is_so(terminal: Terminal, goal: str) -> None:
    terminal.create(job())
    said = terminal.run("wait", "job/w", f"--for={goal}", meanwhile=begin)
    assert (said.code, said.out) == (0, "job/w condition met\n")


def test_wait_takes_a_condition_in_any_case_of_letters(terminal: Terminal) -> None:
    terminal.create(job())
    assert terminal.run("wait", "job/w", "--for=condition=running=true", meanwhile=begin).code == 0


def test_wait_says_what_was_missing(terminal: Terminal) -> None:
    terminal.create(job(), job("v"))
    terminal.status(
        Job,
        "w",
        lambda found: setattr(found.status, "conditions", set_condition([], RUNNING, False, "NoNodeFits", "too large", utcnow())),
    )
    said = terminal.run("wait", "jobs", "--all", "--for=condition=Running", "--timeout=50ms")
    assert said.code == 1
    assert said.err.splitlines() == [
        "Error: timed out after 0.05 s waiting for condition Running=True of job/v: it has no condition Running yet",
        "Error: timed out after 0.05 s waiting for condition Running=True of job/w: Running is False (NoNodeFits: too large)",
    ]


def test_wait_for_deletion_also_of_what_is_gone(terminal: Terminal) -> None:
    terminal.create(node())

    async def remove(store: Store) -> None:
        await store.delete(Node, "n1")

    assert terminal.run("wait", "node/n1", "--for=delete", meanwhile=remove).out == "node/n1 deleted\n"
    assert terminal.run("wait", "node/n1", "--for=delete").code == 0
    assert terminal.run("wait", "node/n1", "--for=condition=Ready").err == "Error from server (NotFound): node/n1 does not exist\n"


def test_wait_ends_when_the_object_goes_away(terminal: Terminal) -> None:
    terminal.create(node())

    async def remove(store: Store) -> None:
        await store.delete(Node, "n1")

    said = terminal.run("wait", "node/n1", "--for=condition=Ready", meanwhile=remove)
    assert said.code == 1
    assert "node/n1" in said.err


@pytest.mark.parametrize("goal", ["Running", "condition=", "condition=Running=maybe", "jsonpath={.a"])
def test_a_goal_that_cannot_be_read(terminal: Terminal, goal: str) -> None:
    assert terminal.run("wait", "job/w", f"--for={goal}").code == 1


# --- logs ---


def output(terminal: Terminal, found: Job) -> Path:
    path = Path(str(terminal.context.shared), ".mx/jobs/default", f"{found.name}-{str(found.metadata.uid)[:8]}", "output.log")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def written(terminal: Terminal) -> Path:
    terminal.create(job())
    path = output(terminal, terminal.do(lambda store: store.get(Job, "w")))
    path.write_text("".join(f"line {number}\n" for number in range(20000)))
    return path


def test_logs_prints_all(terminal: Terminal, written: Path) -> None:
    assert terminal.run("logs", "w").out == written.read_text()
    assert terminal.run("logs", "job/w").out == written.read_text()


@pytest.mark.parametrize("count", [0, 1, 3, 15000, 20000, 30000])
@pytest.mark.parametrize("last", ["", "no end of line"])
def test_the_tail_of_logs(terminal: Terminal, written: Path, count: int, last: str) -> None:
    with written.open("a") as stream:
        stream.write(last)
    lines = written.read_text().splitlines(keepends=True)
    assert terminal.run("logs", "w", f"--tail={count}").out == "".join(lines[len(lines) - min(count, len(lines)) :])


def test_logs_of_a_job_that_failed_before_it_could_print(terminal: Terminal) -> None:
    terminal.create(job())

    def fail(found: Job) -> None:
        found.status.phase, found.status.message = JobPhase.FAILED, "working directory /nowhere: No such file or directory"

    terminal.status(Job, "w", fail)
    said = terminal.run("logs", "w")
    why = "job/w printed nothing, it failed before it could: working directory /nowhere: No such file or directory"
    assert (said.code, said.out, said.err) == (1, "", f"Error: {why}\n")


def test_following_prints_everything_once_and_ends_with_the_job(terminal: Terminal) -> None:
    terminal.create(job())

    async def write(store: Store) -> None:
        path = output(terminal, await store.get(Job, "w"))
        for number in range(50):
            with path.open("a") as stream:
                stream.write(f"{number}\n")
            await store.change_status(
                Job, "w", None, lambda found: setattr(found.status, "cpu_seconds", found.status.cpu_seconds + 1)
            )
        await store.change_status(Job, "w", None, end(JobPhase.SUCCEEDED, 0))

    said = terminal.run("logs", "-f", "w", meanwhile=write)
    assert said.code == 0
    assert said.out.split() == [str(number) for number in range(50)]


def test_following_a_job_that_is_deleted(terminal: Terminal, written: Path) -> None:
    async def remove(store: Store) -> None:
        made = await store.get(Job, "w")
        await store.delete(Job, "w")
        await store.remove_finalizer(made, STOP_FINALIZER)

    said = terminal.run("logs", "-f", "--tail=1", "w", meanwhile=remove)
    assert (said.code, said.out, said.err) == (0, "line 19999\n", "job/w was deleted\n")


def test_logs_of_a_job_that_has_not_begun(terminal: Terminal) -> None:
    terminal.create(job())
    said = terminal.run("logs", "w")
    assert (said.code, said.err) == (1, "Error: job/w has not been started yet: it is Pending; wait for it with mxctl logs -f\n")


def test_logs_where_shared_is_not_seen(terminal: Terminal) -> None:
    terminal.create(job())
    terminal.context.shared = None
    assert "does not say where this machine sees /shared" in terminal.run("logs", "w").err


# --- delete ---


def test_delete_waits_until_the_job_is_gone(terminal: Terminal) -> None:
    terminal.create(job())

    async def stop(store: Store) -> None:
        made = await appears(store, Job)
        async for _ in store.kv.watch("/mx/kinds/jobs/", revision=1):
            if (await store.get(Job, "w")).metadata.deletion_timestamp:
                break
        await store.remove_finalizer(made, STOP_FINALIZER)

    said = terminal.run("delete", "job", "w", meanwhile=stop)
    assert (said.code, said.out) == (0, "job/w deleted\n")


def test_delete_gives_up_and_says_why(terminal: Terminal) -> None:
    terminal.create(job())
    terminal.status(Job, "w", lambda found: setattr(found.status, "message", "node n1 is not Ready"))
    said = terminal.run("delete", "job/w", "--timeout=50ms")
    assert said.code == 1
    assert said.err == "Error: job/w is still being deleted after 0.05 s: it waits for mx/stop (node n1 is not Ready)\n"


def test_delete_what_is_not_there(terminal: Terminal) -> None:
    terminal.create(node())
    said = terminal.run("delete", "node", "n9", "n1")
    assert (said.code, said.out, said.err) == (1, "node/n1 deleted\n", "Error from server (NotFound): node/n9 does not exist\n")
    assert terminal.run("delete", "node", "n9", "--ignore-not-found").code == 0


def test_delete_needs_names_or_all(terminal: Terminal) -> None:
    terminal.create(node("n1"), node("n2"))
    assert terminal.run("delete", "nodes").err == "Error: name the nodes to delete, or add --all or -l\n"
    assert terminal.run("delete").code == 1
    assert terminal.run("delete", "nodes", "--all").out == "node/n1 deleted\nnode/n2 deleted\n"


# --- migrate ---


def moved(how: str) -> Any:
    async def script(store: Store) -> None:
        made = await appears(store, Migration)

        def change(found: Migration) -> None:
            found.status.source, found.status.destination = "n1", "n2"
            if how == "well":
                found.status.phase, found.status.freeze_ms, found.status.bytes = MigrationPhase.SUCCEEDED, 33.6, 12 << 20
            else:
                found.status.phase, found.status.message = MigrationPhase.FAILED, "no room"
                found.status.conditions = set_condition([], FAILED, True, REFUSED, "no room", utcnow())

        await store.change_status(Migration, made.name, None, change)

    return script


def test_migrate_waits_and_tells_the_freeze(terminal: Terminal) -> None:
    terminal.create(job(), node("n2"))
    said = terminal.run("migrate", "job/w", "n2", "--wait", meanwhile=moved("well"))
    assert said.code == 0
    assert said.out.splitlines()[1] == "job/w moved from n1 to n2, frozen for 34 ms, 12Mi sent"
    [made] = terminal.do(lambda store: store.list(Migration)).items
    assert (made.spec.job, made.spec.to, made.spec.requested_by) == ("w", "n2", "user")


def test_a_move_that_failed_is_an_error_with_its_reason(terminal: Terminal) -> None:
    terminal.create(job())
    said = terminal.run("migrate", "w", "--wait", meanwhile=moved("badly"))
    assert (said.code, said.err) == (1, "Error: job/w was not moved: Refused: no room\n")


@pytest.mark.parametrize("words", [["nope", "n1"], ["w", "n9"]])
def test_nothing_is_asked_for_what_is_not_there(terminal: Terminal, words: list[str]) -> None:
    terminal.create(job(), node("n1"))
    before = terminal.revision
    said = terminal.run("migrate", *words)
    assert (said.code, terminal.revision) == (1, before)
    assert "NotFound" in said.err


def test_migrate_says_when_it_is_not_over_in_time(terminal: Terminal) -> None:
    terminal.create(job())
    said = terminal.run("migrate", "w", "--wait", "--timeout=50ms")
    assert said.code == 1
    assert "is not over after 0.05 s; it goes on" in said.err


def test_a_job_that_has_ended_is_not_asked_to_move(terminal: Terminal) -> None:
    terminal.create(job(), node())
    terminal.status(Job, "w", end(JobPhase.SUCCEEDED, 0))
    said = terminal.run("migrate", "w", "n1")
    assert (said.code, said.out, said.err) == (1, "", "Error: job/w cannot be moved: it has ended (Succeeded)\n")
    assert terminal.do(lambda store: store.list(Migration)).items == ()


# --- migrate --cancel ---


def cancelled(phase: MigrationPhase, reason: str = CANCELLED) -> Any:
    """The reconciler's answer as soon as somebody wants it called off."""

    async def script(store: Store) -> None:
        while not (made := await store.get(Migration, "w-1")).spec.cancelled:  # noqa: ASYNC110 - somebody else writes it
            await asyncio.sleep(0.005)

        def change(found: Migration) -> None:
            found.status.source, found.status.destination, found.status.phase = "n1", "n2", phase
            if phase == MigrationPhase.FAILED:
                found.status.message = f"{reason}: called off by request"
                found.status.conditions = set_condition([], FAILED, True, reason, "called off by request", utcnow())

        await store.change_status(Migration, made.name, None, change)

    return script


def move_of_w(name: str = "w-1", job: str = "w") -> Migration:
    return Migration(metadata=Metadata(name=name), spec=MigrationSpec(job=job))


@pytest.mark.parametrize("word", ["w", "job/w", "w-1", "migration/w-1"])
def test_a_move_is_called_off_by_its_name_or_its_jobs(terminal: Terminal, word: str) -> None:
    terminal.create(job(), move_of_w(), move_of_w("x-1", "x"))
    said = terminal.run("migrate", "--cancel", word, "--wait", meanwhile=cancelled(MigrationPhase.FAILED))
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [
        "migration/w-1 is to be called off",
        "migration/w-1 is over: Cancelled: called off by request",
    ]
    assert [m.name for m in terminal.do(lambda store: store.list(Migration)).items if m.spec.cancelled] == ["w-1"]


def test_cancelling_without_waiting_only_asks(terminal: Terminal) -> None:
    terminal.create(job(), move_of_w())
    assert terminal.run("migrate", "--cancel", "w").out == "migration/w-1 is to be called off\n"


def test_too_late_is_an_error(terminal: Terminal) -> None:
    terminal.create(job(), move_of_w())
    said = terminal.run("migrate", "--cancel", "w", "--wait", meanwhile=cancelled(MigrationPhase.SUCCEEDED))
    assert (said.code, said.err) == (1, "Error: too late: migration/w-1 is over: job/w moved from n1 to n2\n")
    again = terminal.run("migrate", "--cancel", "w-1")
    assert (again.code, again.err) == (1, "Error: too late: migration/w-1 is over: job/w moved from n1 to n2\n")


def test_nothing_to_cancel(terminal: Terminal) -> None:
    terminal.create(job())
    said = terminal.run("migrate", "--cancel", "w")
    assert said.code == 1 and "no move of it is under way" in said.err
    assert terminal.run("migrate", "--cancel", "w", "n2").err == "Error: --cancel takes a job or a migration and nothing else\n"


def test_migrate_says_at_once_that_nobody_can_decide(terminal: Terminal) -> None:
    terminal.create(job())

    async def stuck(store: Store) -> None:
        made = await appears(store, Migration)

        def change(found: Migration) -> None:
            found.status.conditions = set_condition([], RECONCILED, False, "Unreadable", "/mx/x cannot be read", utcnow())

        await store.change_status(Migration, made.name, None, change)

    said = terminal.run("migrate", "w", "--wait", meanwhile=stuck)
    assert said.code == 1
    assert said.err.endswith("cannot be decided: Unreadable: /mx/x cannot be read\n")
