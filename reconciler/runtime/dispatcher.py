"""The one place where it is decided what follows from the outcome of a piece of work.

DONE, Again            backoff forgotten; looked at again after the wished time, if any
Retryable              again after its own pause, or growing ones
Terminal               condition Reconciled=False and a Warning event; not again until the object changes
Invalid                from the store: like Terminal, because the same write would be refused again
Conflict, NotFound     somebody was faster: again almost at once
Fenced                 raised on: we do not lead any more, all work stops
Unavailable, time-out  again at an even pace; nothing to tell about the object
anything else          a bug or a surprise: logged with its traceback, a Warning event, growing pauses. It never stops the rest
"""

import logging
from dataclasses import dataclass

from crds.meta import RECONCILED, Resource, find_condition, set_condition
from reconciler.context import Context
from reconciler.runtime.backoff import Backoff, Pause
from reconciler.runtime.declare import Controller
from reconciler.runtime.outcome import Again, Retryable, Terminal
from reconciler.status import status_of
from store.errors import Conflict, Fenced, Invalid, NotFound, StoreError, Unavailable

log = logging.getLogger(__name__)

"""Condition that an object has only while repeating cannot help."""


@dataclass(frozen=True, slots=True)
class Work:
    """A key of one controller."""

    controller: Controller
    key: str

    def __str__(self) -> str:
        return f"{self.controller.name} {self.key}"


class Dispatcher:
    """Runs one piece of work and answers when it is due again (seconds; None: when something changes)."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._backoff: Backoff[Work] = Backoff()
        self._stuck: set[Work] = set()

    async def run(self, work: Work) -> float | None:
        """Raises Fenced only."""
        try:
            return await self._succeeded(work, await work.controller.reconcile(self._context, work.key))
        except Fenced:
            raise
        except Retryable as error:
            log.info("%s: not yet: %s", work, error)
            return self._backoff.next(work, Pause.FAILURE) if error.after is None else error.after
        except (Terminal, Invalid) as error:
            return await self._stopped(work, error.reason if isinstance(error, Terminal) else "Invalid", str(error))
        except (Conflict, NotFound) as error:
            log.debug("%s: %s", work, error)
            return self._backoff.next(work, Pause.CONFLICT)
        except (Unavailable, TimeoutError) as error:
            log.warning("%s: the store does not answer: %s", work, error or "time-out")
            return self._backoff.next(work, Pause.UNAVAILABLE)
        except Exception as error:
            log.exception("%s: unexpected failure, will be tried again", work)
            await self._tell(
                work, "InternalError", f"{work.controller.name}: {type(error).__name__}: {error}: see the reconciler's log"
            )
            return self._backoff.next(work, Pause.FAILURE)

    async def _succeeded(self, work: Work, outcome: Again) -> float | None:
        self._backoff.reset(work)
        if work in self._stuck or self._marked(work):
            await self._mark(work, None)
            self._stuck.discard(work)
        return outcome.after

    async def _stopped(self, work: Work, reason: str, message: str) -> float | None:
        log.error("%s: given up until it changes: %s", work, message)
        self._backoff.reset(work)
        if work not in self._stuck:
            self._stuck.add(work)
            await self._tell(work, reason, message)
        await self._mark(work, (reason, message))
        return None

    def _object(self, work: Work) -> Resource | None:
        kind = work.controller.kind
        return self._context.world.find(kind, work.key) if kind else None

    async def _tell(self, work: Work, reason: str, message: str) -> None:
        obj = self._object(work)
        if obj is not None:
            await self._context.recorder.record(obj, "Warning", reason, message)

    def _marked(self, work: Work) -> bool:
        obj = self._object(work)
        return obj is not None and find_condition(status_of(obj).conditions, RECONCILED) is not None

    async def _mark(self, work: Work, trouble: tuple[str, str] | None) -> None:
        """Sets the condition, or takes it away. Writes nothing when it stands so already."""
        obj = self._object(work)
        if obj is None:
            return
        old = find_condition(status_of(obj).conditions, RECONCILED)
        if (old.reason, old.message) == trouble if old and trouble else old is None and trouble is None:
            return
        namespace = obj.namespace if obj.NAMESPACED else None

        def change(obj: Resource) -> None:
            status = status_of(obj)
            kept = [c for c in status.conditions if c.type != RECONCILED]
            now = self._context.now()
            status.conditions = set_condition(kept, RECONCILED, False, *trouble, now, obj.metadata.generation) if trouble else kept

        try:
            await self._context.store.change_status(type(obj), obj.name, namespace, change)
        except Fenced:
            raise
        except StoreError as error:
            log.warning("%s: its condition was not written: %s", work, error)
