"""People who talk to jobs: their connections (kind "stdio") are handed on to the job's mx-stdio, byte for byte.

The agent understands nothing of what is said. When the job leaves, is frozen or ends, or the agent does, the connection ends, and
whoever is at its other end asks again where the job is then; no byte is lost or doubled by that (see nodeagent/stdio).
"""

import logging
from collections.abc import Callable

from pydantic import Field

from crds.job import Stdio
from crds.meta import Model, Name
from nodeagent.attachment import BLOCK, Attachment
from nodeagent.case import Case
from nodeagent.channel import Channel
from nodeagent.config import Config
from nodeagent.engine import Sandbox
from nodeagent.errors import AgentError, EngineFailed, StartFailed
from nodeagent.frames import Open, Ready, Refused
from nodeagent.jobs import environment
from nodeagent.journal import Record

log = logging.getLogger(__name__)


class Wish(Model):
    """Whom they want to talk to."""

    namespace: Name
    name: Name
    uid: str


class SessionWish(Wish):
    """What they want to run beside it."""

    session: str = Field(pattern=r"^[0-9a-f]{32}$")
    """Names it, so that it is started once and found again."""
    fresh: bool
    """It may be started; otherwise it is to be there."""
    command: list[str] = Field(min_length=1)
    env: dict[str, str] = Field(default_factory=dict)
    stdio: Stdio


KILLED = 137
"""What a shell says of a program that was killed."""


class Reception:
    """``case_of`` finds what is at hand about a job, by its key."""

    def __init__(self, config: Config, case_of: Callable[[str], Case | None]) -> None:
        self._config = config
        self._case_of = case_of

    async def attach(self, channel: Channel, opened: Open) -> None:
        """One connection, to its end. Raises PeerLost, ValidationError."""
        wish = Wish.model_validate(opened.body)
        try:
            attachment = await self._sandbox(wish)[1].attach()
        except AgentError as error:
            await channel.send(Refused(reason=str(error)), timeout=self._config.timing.answer)
            return
        await self._relay(channel, wish, attachment)

    async def run_beside(self, channel: Channel, opened: Open) -> None:
        """One connection to a program beside a job, which is started unless it is there. Raises PeerLost, ValidationError."""
        wish = SessionWish.model_validate(opened.body)
        try:
            attachment = await self._begin(wish)
        except StartFailed as error:
            await channel.send(Refused(reason=str(error), exit_code=error.exit_code), timeout=self._config.timing.answer)
            return
        except AgentError as error:
            await channel.send(Refused(reason=str(error)), timeout=self._config.timing.answer)
            return
        await self._relay(channel, wish, attachment)

    async def _begin(self, wish: SessionWish) -> Attachment:
        record, sandbox = self._sandbox(wish)
        if not sandbox.has_session(wish.session):
            if not wish.fresh:
                raise StartFailed("the session has ended", KILLED)
            spec = record.spec.model_copy(update={"command": wish.command, "stdio": wish.stdio})
            await sandbox.start_beside(wish.session, spec, {**environment(record), **wish.env})
        return await sandbox.attach(wish.session)

    async def _relay(self, channel: Channel, wish: Wish, attachment: Attachment) -> None:
        timing = self._config.timing
        try:
            await channel.send(Ready(), timeout=timing.answer)
            log.info("job %s/%s: %s is attached", wish.namespace, wish.name, channel.peer)
            await attachment.relay(
                lambda: channel.read(BLOCK, timeout=None), lambda data: channel.write(data, timeout=timing.answer)
            )
        finally:
            await attachment.detach()

    def _sandbox(self, wish: Wish) -> tuple[Record, Sandbox]:
        case = self._case_of(f"{wish.namespace}/{wish.name}")
        if case is None or case.record is None or case.record.uid != wish.uid or case.sandbox is None or case.exit is not None:
            raise EngineFailed(f"job {wish.namespace}/{wish.name} does not run on node {self._config.node}")
        return case.record, case.sandbox
