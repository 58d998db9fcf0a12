"""QMP: how one speaks to QEMU. One command a connection, over a unix socket: JSON lines."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.errors import LabError

SECONDS = 5.0


def execute(path: Path, command: str, arguments: Mapping[str, object] | None = None, *, seconds: float = SECONDS) -> Any:
    """What QEMU returns. LabError when it does not answer, or refuses."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(str(path))
            with connection.makefile("rwb") as stream:
                _read(stream)  # its greeting
                _ask(stream, "qmp_capabilities", {})
                return _ask(stream, command, arguments or {})
    except (OSError, ValueError) as error:
        raise LabError(f"the virtual machine behind {path} does not answer {command}: {error}; is it on?") from error


def _ask(stream: Any, command: str, arguments: Mapping[str, object]) -> Any:
    stream.write(json.dumps({"execute": command, "arguments": dict(arguments)}).encode() + b"\n")
    stream.flush()
    while True:
        answer = _read(stream)
        if "error" in answer:
            raise LabError(f"the virtual machine refuses {command}: {answer['error'].get('desc', answer['error'])}")
        if "return" in answer:
            return answer["return"]


def _read(stream: Any) -> dict[str, Any]:
    line = stream.readline()
    if not line:
        raise ValueError("it closed the connection")
    found: dict[str, Any] = json.loads(line)
    return found
