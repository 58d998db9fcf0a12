"""The control socket of pid 1 and its main loop."""

# ruff: noqa: PTH101, PTH109
# importing pathlib takes as long as all the rest
from __future__ import annotations  # so that typing need not be imported either

import json
import os
import selectors
import signal
import socket

from nodeagent.shim.answers import Refused, answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from nodeagent.shim.state import Shim

MAX_LINE = 1 << 20
"""Bytes; the store takes no object above 1 MiB, so no command is longer."""
MOST_DESCRIPTORS = 4


def obey(shim: Shim, connection: socket.socket, line: bytes, descriptors: list[int]) -> None:
    """One request, one answer; only criu's comes later. ``descriptors`` came with it."""
    try:
        request = json.loads(line)
        verb = request.pop("do")
        later: dict[str, Any] = {"dump": shim.dump, "pre-dump": shim.pre_dump, "restore": shim.restore, "streamed": shim.streamed}
        if verb in later:
            later[verb](connection, **request, **({"pages": descriptors[0]} if descriptors else {}))
            return
        verbs: dict[str, Any] = {
            "start": shim.start,
            "start_beside": shim.start_beside,
            "expect": shim.expect,
            "status": shim.status,
            "abort": shim.abort,
            "restored": shim.restored,
            "thaw": shim.thaw,
            "reconnect": shim.reconnect,
            "sever": shim.sever,
            "clear": shim.clear,
            "signal": shim.send_signal,
        }
        result = {"ok": True, **verbs[verb](**request)}
    except Refused as error:
        result = {"ok": False, "error": str(error), **error.fields}
    except (OSError, ValueError, KeyError, TypeError) as error:
        result = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    answer(connection, result)
    shim.enter_late()


def listen(run_dir: str) -> socket.socket:
    """The control socket. Bound from inside the directory, because a socket's path may not be longer than 107 bytes."""
    here = os.getcwd()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.chdir(run_dir)
    listener.bind("control")
    os.chmod("control", 0o600)
    os.chdir(here)
    listener.listen(16)
    listener.setblocking(False)
    return listener


def serve(shim: Shim, listener: socket.socket) -> NoReturn:
    """The main loop: requests and the ends of children."""
    wake_end, wakeup = os.pipe()
    os.set_blocking(wake_end, False)
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    selector = selectors.DefaultSelector()

    def ended() -> None:
        os.read(wake_end, 512)
        shim.reap()

    def called() -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        received: bytearray = bytearray()
        descriptors: list[int] = []
        selector.register(connection, selectors.EVENT_READ, lambda: heard(connection, received, descriptors))

    def heard(connection: socket.socket, received: bytearray, descriptors: list[int]) -> None:
        try:
            data, came, _, _ = socket.recv_fds(connection, 65536, MOST_DESCRIPTORS)
            descriptors += came
        except OSError:
            data = b""
        received += data
        if data and b"\n" not in data and len(received) <= MAX_LINE:
            return  # more is to come
        selector.unregister(connection)
        if b"\n" in data:
            obey(shim, connection, bytes(received), descriptors)
        else:
            connection.close()
            for descriptor in descriptors:
                os.close(descriptor)

    def watch(descriptor: int, then: Callable[[], None]) -> None:
        def once() -> None:
            selector.unregister(descriptor)
            then()

        selector.register(descriptor, selectors.EVENT_READ, once)

    shim.watch = watch

    selector.register(wake_end, selectors.EVENT_READ, ended)
    selector.register(listener, selectors.EVENT_READ, called)
    while True:
        for key, _ in selector.select():
            key.data()
