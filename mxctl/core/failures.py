"""How failures are told: one line each on stderr, like kubectl's, and an exit code.

Error: cluster.yaml:3: spec.mak: unknown field; did you mean "mac"?
Error from server (NotFound): job/w does not exist
"""

import errno
from collections.abc import Iterator

from store.errors import AlreadyExists, Fenced, Gone, Invalid, NotFound, StoreError

FAILED = 1
INTERRUPTED = 130

_OUTPUT_FAILS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # EPIPE is click's: it ends the command quietly

_REASONS: tuple[type[StoreError], ...] = (NotFound, AlreadyExists, Fenced, Gone, Invalid)


class Failure(Exception):  # noqa: N818 - it is what the command ends with
    """The command cannot do what was asked; each message is one line: object, cause, next step."""

    def __init__(self, *messages: str, exit_code: int = FAILED) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages
        self.exit_code = exit_code


def tell(error: BaseException) -> Iterator[str]:
    """The lines to print for an error that is the user's to know about. Anything else is a defect of ours and raised again."""
    from crds.codec import CodecErrors  # late: the resource types take longest to import, and --help does without

    if isinstance(error, Failure):
        yield from (f"Error: {message}" for message in error.messages)
    elif isinstance(error, CodecErrors):
        yield from (f"Error: {problem}" for problem in error.problems)
    elif isinstance(error, StoreError):
        reason = next((kind.__name__ for kind in _REASONS if isinstance(error, kind)), type(error).__name__)
        yield f"Error from server ({reason}): {error}"
    elif isinstance(error, OSError) and error.errno in _OUTPUT_FAILS:
        yield f"Error: the output cannot be written: {error.strerror}"
    else:
        raise error


def innermost(error: BaseException) -> BaseException:
    """What really happened: the first error inside a task group's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
