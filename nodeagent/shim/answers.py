"""What the shim answers: one JSON line."""

# importing pathlib takes as long as all the rest
from __future__ import annotations  # so that typing need not be imported either

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    Answer = dict[str, Any]


class Refused(Exception):  # noqa: N818 - as in errors.py, named after what happened
    """The request cannot be done; the text says why. ``fields`` go into the answer too."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields = fields


def answer(connection: socket.socket, data: Answer) -> None:
    """Sends one line and hangs up; an agent that died meanwhile does not matter."""
    try:
        connection.setblocking(True)
        connection.settimeout(1.0)
        connection.sendall(json.dumps(data).encode() + b"\n")
    except OSError:
        pass  # nobody listens any more: whoever comes next asks for the status
    finally:
        connection.close()
