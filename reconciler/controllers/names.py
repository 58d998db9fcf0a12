"""Names of what the reconciler makes."""

import re
import zlib

from crds.job import Job
from reconciler.world import World, work_key

LONGEST_BASE = 50
"""Characters of a job's name that go into the names of its Migrations."""


def migration_name(world: World, job: Job) -> str:
    """``<job>-<n>``, with n above the job's epoch and above all that were there, so that it never comes twice."""
    base = job.name
    if len(base) > LONGEST_BASE:
        base = f"{base[:LONGEST_BASE]}-{zlib.crc32(base.encode()):08x}"
    matches = (re.fullmatch(rf"{re.escape(base)}-(\d+)", m.name) for m in world.migrations_of(work_key(job)))
    used = [int(match[1]) for match in matches if match]
    return f"{base}-{max([job.status.epoch, *used]) + 1}"
