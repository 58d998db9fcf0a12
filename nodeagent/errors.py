"""What can go wrong on a node.

AgentError
├── StartFailed      the job's program could not be started; repeating it cannot help
├── EngineFailed     criu (or a namespace, or a cgroup) refused; the message quotes its last error line
├── SandboxGone      the shim does not live any more
├── CheckpointFailed a checkpoint could not be taken, or the job cannot go on from it at the moment
│   └── CheckpointDamaged  it is not what was taken: the job will never go on from it
└── MoveFailed       one end gave up; before the commit point the job goes on at the source
    ├── PeerLost     the data channel broke or was silent too long: what the other end decided is not known
    └── Untrusted    the other end (or we, to it) could not prove who it is; trying again cannot help
"""


class AgentError(Exception):
    """Root of all errors of this room."""


class StartFailed(AgentError):  # noqa: N818 - named after the state it leads to
    """The program could not be started; ``exit_code`` is the shell's convention (126 not executable, 127 not found)."""

    def __init__(self, message: str, exit_code: int = 127) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class EngineFailed(AgentError):  # noqa: N818
    """criu or the kernel refused."""


class SandboxGone(AgentError):  # noqa: N818
    """The shim does not live any more."""


class CheckpointFailed(AgentError):  # noqa: N818
    """A checkpoint could not be taken or used."""


class CheckpointDamaged(CheckpointFailed):
    """It will never be of use."""


class MoveFailed(AgentError):  # noqa: N818
    """One end of a move gave up."""


class PeerLost(MoveFailed):
    """The other end does not answer; its decision is unknown."""


class Untrusted(MoveFailed):
    """Who is at the other end is not who should be there, or cannot prove it."""
