"""What mx-stdio says last reaches the client, though it does not listen any more."""

import asyncio
import socket

from nodeagent.attachment import Attachment


async def test_the_last_words_are_passed_on_after_it_hung_up() -> None:
    """The client types while the program ends: its bytes meet a closed socket before the exit code was taken out of it."""
    here, there = socket.socketpair()
    here.setblocking(False)
    there.sendall(b"first")
    said, begun = bytearray(), asyncio.Event()
    typed = iter([b"typed", b""])

    async def read() -> bytes:
        await begun.wait()
        return next(typed)

    async def write(data: bytes) -> None:
        if not begun.is_set():
            there.sendall(b" last")
            there.close()
            begun.set()
            await asyncio.sleep(0.05)  # a client that is slow to take it
        said.extend(data)

    attachment = Attachment(here, "a job")
    await attachment.relay(read, write)
    await attachment.detach()
    assert bytes(said) == b"first last"
