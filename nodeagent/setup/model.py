"""What was done to a machine to make it a node: written down before it is done, so that it can be undone whatever happened then."""

import os
from enum import StrEnum
from pathlib import Path

from pydantic import Field, ValidationError

from crds.meta import Model, Name
from nodeagent.errors import AgentError

RECORD = Path("/etc/mx/joined.json")


class SetupFailed(AgentError):  # noqa: N818 - reads as what it says
    """The machine cannot be made a node, or not undone; says what to do."""


class Supervisor(StrEnum):
    """Who keeps agent and guard running."""

    SYSTEMD = "systemd"
    PROCESSES = "processes"
    """We ourselves, on machines without systemd: a shell for each, which starts it again."""


class Joined(Model):
    """One machine."""

    node: Name
    """As which it joined."""
    head: str
    """mx-join's host:port."""
    endpoints: str
    """etcd's."""
    address: str
    """At which its peers reach it."""
    supervisor: Supervisor
    """Who keeps its services running."""
    mounted: str = ""
    """What we mounted at /shared; empty when it was there before."""
    made: list[str] = Field(default_factory=list)
    """Directories that were not there before, outermost first."""


def load(path: Path = RECORD) -> Joined | None:
    """What is recorded; None on a machine that never joined. SetupFailed."""
    try:
        return Joined.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        raise SetupFailed(
            f"{path}: cannot be read: {str(error).splitlines()[0]}; repair it, or remove it and what it names"
        ) from error


def save(joined: Joined, path: Path = RECORD) -> None:
    """Whole, and safe from a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("wb") as out:
        out.write(joined.to_json())
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
