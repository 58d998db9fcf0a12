"""Says how far a long piece of work is: a bar on a terminal, one line a phase otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console


class Report(Protocol):
    """Told each phase as it begins."""

    def __call__(self, phase: str, /) -> None: ...


def silent(phase: str, /) -> None:
    """Reports to nobody."""


@contextmanager
def reporting(title: str, phases: int, console: "Console | None" = None) -> Iterator[Report]:
    """Yields a Report; ``phases`` is how many are expected (more or fewer do no harm). Writes to stderr."""
    from rich.console import Console  # late: mx-clip on a head has no terminal, and no such package
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lambda phase: console.print(f"{title}: {phase}", markup=False, highlight=False, soft_wrap=True)
        return
    columns = (TextColumn("{task.fields[title]}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=phases, title=title, completed=-1)

        def report(phase: str, /) -> None:
            bar.update(task, description=phase, advance=1)

        yield report
