"""People who talk to jobs: their connections (kind "stdio") are handed on to the job's mx-stdio, byte for byte.

The agent understands nothing of what is said. When the job leaves, is frozen or ends, or the agent does, the connection ends, and
whoever is at its other end asks again where the job is then; no byte is lost or doubled by that (see nodeagent/stdio).
"""

import logging
from collections.abc import Callable

from crds.meta import Model, Name
from nodeagent.attachment import BLOCK, Attachment
from nodeagent.case import Case
from nodeagent.channel import Channel
from nodeagent.config import Config
from nodeagent.errors import AgentError, EngineFailed
from nodeagent.frames import Open, Ready, Refused

log = logging.getLogger(__name__)


class Wish(Model):
    """Whom they want to talk to."""

    namespace: Name
    name: Name
    uid: str


class Reception:
    """``case_of`` finds what is at hand about a job, by its key."""

    def __init__(self, config: Config, case_of: Callable[[str], Case | None]) -> None:
        self._config = config
        self._case_of = case_of

    async def attach(self, channel: Channel, opened: Open) -> None:
        """One connection, to its end. Raises PeerLost, ValidationError."""
        wish = Wish.model_validate(opened.body)
        timing = self._config.timing
        try:
            attachment = await self._find(wish)
        except AgentError as error:
            await channel.send(Refused(reason=str(error)), timeout=timing.answer)
            return
        try:
            await channel.send(Ready(), timeout=timing.answer)
            log.info("job %s/%s: %s is attached", wish.namespace, wish.name, channel.peer)
            await attachment.relay(
                lambda: channel.read(BLOCK, timeout=None), lambda data: channel.write(data, timeout=timing.answer)
            )
        finally:
            await attachment.detach()

    async def _find(self, wish: Wish) -> Attachment:
        case = self._case_of(f"{wish.namespace}/{wish.name}")
        if case is None or case.record is None or case.record.uid != wish.uid or case.sandbox is None or case.exit is not None:
            raise EngineFailed(f"job {wish.namespace}/{wish.name} does not run on node {self._config.node}")
        return await case.sandbox.attach()
