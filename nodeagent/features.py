"""Ways of moving beside the plain one that this node is able to: what it says of itself in its alive key.

post-copy needs userfaultfd that tells of forks and unmappings, and pipes of 4 MiB. Without CAP_SYS_RESOURCE criu cannot have such
pipes unless the kernel lets everybody have them: so fs.pipe-max-size is raised, never lowered. That setting is the machine's,
shared by all its nodes; it costs nothing, as it is only a limit.
"""

import logging
from pathlib import Path

from nodeagent.criu import Criu

log = logging.getLogger(__name__)

POST_COPY = "post-copy"
PRE_COPY = "pre-copy"
PIPE_LIMIT = Path("/proc/sys/fs/pipe-max-size")
PIPE_BYTES = 4 << 20


async def find_features(criu: Criu) -> list[str]:
    """Tries them; what is missing, and why, goes to the log."""
    missing = {
        POST_COPY: await criu.check("uffd-noncoop") or enlarge_pipes(),  # which asks for userfaultfd itself, too
        PRE_COPY: await criu.check("mem_dirty_track"),
    }
    for feature, why in missing.items():
        if why:
            log.info("moves by %s are not possible on this node: %s", feature, why)
    return [feature for feature, why in missing.items() if not why]


def enlarge_pipes(limit: Path = PIPE_LIMIT) -> str:
    """Lets pipes have PIPE_BYTES; why that is not possible, "" when it is."""
    try:
        if int(limit.read_text()) < PIPE_BYTES:
            limit.write_text(str(PIPE_BYTES))
            log.info("%s raised to %d, for moves by post-copy", limit, PIPE_BYTES)
    except OSError as error:
        return f"{limit} is below {PIPE_BYTES} and cannot be raised: {error.strerror}: set it on the machine"
    return ""
