"""Asking for a move, and saying how it went: for ``migrate`` and ``drain``."""

import secrets

from crds.meta import find_condition
from crds.migration import FAILED, Migration, MigrationPhase
from crds.quantity import human_memory

ENDED = (MigrationPhase.SUCCEEDED, MigrationPhase.FAILED)


def new_migration(
    job: str, namespace: str, *, to: str | None, requested_by: str, reason: str = "", mode: str | None = None
) -> Migration:
    """A Migration under a name of its own; the job's name is in it, for people."""
    name = f"{job[:50].rstrip('-.')}-{secrets.token_hex(4)}"
    spec = {"job": job, "to": to, "requested_by": requested_by, "reason": reason, "mode": mode}
    return Migration.model_validate({"metadata": {"name": name, "namespace": namespace}, "spec": spec})


def success(migration: Migration) -> str:
    """One line on a move that succeeded, freeze time in milliseconds."""
    status = migration.status
    freeze = f", frozen for {status.freeze_ms:.0f} ms" if status.freeze_ms is not None else ""
    sent = f", {human_memory(status.bytes)} sent" if status.bytes else ""
    how = f" by {status.mode}" if status.mode else ""
    return f"job/{migration.spec.job} moved from {status.source} to {status.destination}{how}{freeze}{sent}"


def failure(migration: Migration) -> str:
    """One line on a move that failed: why, and what that means for the job."""
    condition = find_condition(migration.status.conditions, FAILED)
    reason = condition.reason if condition else "Failed"
    message = migration.status.message.removeprefix(reason).lstrip(": ") or "no more is known"
    return f"job/{migration.spec.job} was not moved: {reason}: {message}"
