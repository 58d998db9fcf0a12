"""A conversation with a program beside a job (mxctl exec): it stays where it was started, and ends when the job leaves."""

import secrets
from collections.abc import Sequence
from typing import Any

from crds.job import Job
from mxctl.core.session import Session
from mxctl.core.talk import Broken, Talk
from nodeagent.channel import Channel
from nodeagent.errors import PeerLost
from nodeagent.frames import Open
from nodeagent.stdio.client import Client
from nodeagent.stdio.frames import BESIDE
from nodeagent.tcp import Dialer

KILLED = 137


class Beside(Talk):
    """``stdio`` as in a job's spec; ``env`` is added to that of the job."""

    def __init__(
        self,
        session: Session,
        job: Job,
        client: Client,
        *,
        typing: bool,
        command: Sequence[str],
        env: dict[str, str],
        stdio: dict[str, Any],
    ) -> None:
        super().__init__(session, job, client, typing=typing)
        self._what = {"session": secrets.token_hex(16), "command": list(command), "env": env, "stdio": stdio}
        self._node: str | None = None

    async def _open(self, now: Job, dialer: Dialer) -> Channel:
        if self._node is not None and now.status.node != self._node:
            reason = f"it was moved from node/{self._node} to node/{now.status.node}, which ended this session"
            self._decide(Broken(reason, KILLED))
            raise PeerLost(reason)
        channel = await super()._open(now, dialer)
        self._node = now.status.node
        return channel

    def _wish(self, now: Job) -> Open:
        who = {"namespace": now.namespace, "name": now.name, "uid": now.metadata.uid}
        return Open(purpose=BESIDE, body={**who, **self._what, "fresh": self._node is None})
